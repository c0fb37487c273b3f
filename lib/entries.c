/* SPDX-License-Identifier: Apache-2.0 */
/* The socket functions as libc has them: -1 and errno over the cores. */
#include "entry.h"
#include "hooks.h"
#include "libc.h"
#include "sys.h"

/*
 * Nothing to do when a socket is made: it is known by its cookie only when it
 * is used. The entry is here so that this list is all there is, and so that
 * whatever must be set on every new socket has one place.
 */
ENTRY(int, socket, (int domain, int type, int protocol)) {
    return libc_result(sys_socket(domain, type, protocol));
}

ENTRY(int, bind, (int fd, const void *sa, socklen_t len)) {
    return libc_result(hook_bind(fd, sa, len));
}

ENTRY(int, listen, (int fd, int backlog)) {
    return libc_result(hook_listen(fd, backlog));
}

ENTRY(int, connect, (int fd, const void *sa, socklen_t len)) {
    return libc_result(hook_connect(fd, sa, len));
}

ENTRY(int, accept, (int fd, void *sa, socklen_t *len)) {
    return libc_result(hook_accept4(fd, sa, len, 0));
}

ENTRY(int, accept4, (int fd, void *sa, socklen_t *len, int flags)) {
    return libc_result(hook_accept4(fd, sa, len, flags));
}

ENTRY(int, getsockname, (int fd, void *sa, socklen_t *len)) {
    return libc_result(hook_getsockname(fd, sa, len));
}

ENTRY(int, getpeername, (int fd, void *sa, socklen_t *len)) {
    return libc_result(hook_getpeername(fd, sa, len));
}
