/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cores: shaped like the system calls they stand in for, a result or
 * -errno out. entry.c gives them to libc's callers; a loader for programs
 * without libc can call them as they are.
 */
#ifndef BOXER_HOOKS_H
#define BOXER_HOOKS_H

#include <sys/socket.h>
#include <sys/utsname.h>

#include "addr.h"

long hook_bind(int fd, const void *sa, socklen_t len);
long hook_listen(int fd, int backlog);
long hook_connect(int fd, const void *sa, socklen_t len);
long hook_accept4(int fd, void *sa, socklen_t *len, int flags);
long hook_getsockname(int fd, void *sa, socklen_t *len);
long hook_getpeername(int fd, void *sa, socklen_t *len);

/* With MSG_FASTOPEN; without it they are the kernel's. */
long hook_sendto(int fd, const void *data, size_t size, int flags, const void *sa, socklen_t len);
long hook_sendmsg(int fd, const struct msghdr *m, int flags);
long hook_sendmmsg(int fd, struct mmsghdr *all, unsigned count, int flags);

/*
 * The connect in them: -errno, or how the data is to be sent. SEND_TRANSLATED:
 * let the kernel connect, to the address in *to.
 */
enum { SEND_CONNECTED = 0, SEND_TRANSLATED = 1, SEND_AS_IS = 2 };
long connect_to_send(int fd, const void *sa, socklen_t len, int flags, union address *to);

long hook_uname(struct utsname *u);
long hook_execve(const char *path, char *const *argv, char *const *envp);
long hook_execveat(int dir, const char *path, char *const *argv, char *const *envp, int flags);

#endif
