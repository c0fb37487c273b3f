/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cores: shaped like the system calls they stand in for, a result or
 * -errno out. entry.c gives them to libc's callers; a loader for programs
 * without libc can call them as they are.
 */
#ifndef BOXER_HOOKS_H
#define BOXER_HOOKS_H

#include <sys/socket.h>

long hook_bind(int fd, const void *sa, socklen_t len);
long hook_listen(int fd, int backlog);
long hook_connect(int fd, const void *sa, socklen_t len);
long hook_accept4(int fd, void *sa, socklen_t *len, int flags);
long hook_getsockname(int fd, void *sa, socklen_t *len);
long hook_getpeername(int fd, void *sa, socklen_t *len);

#endif
