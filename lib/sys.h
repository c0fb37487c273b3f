/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls as the kernel has them: arguments in, a result or -errno out.
 * Everything the monitor does itself goes through these; none of them touches
 * libc or errno.
 */
#ifndef BOXER_SYS_H
#define BOXER_SYS_H

#include <asm/unistd.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>

#if defined(__x86_64__)
#include "syscall_x86_64.h"
#elif defined(__aarch64__)
#include "syscall_aarch64.h"
#else
#error "the process monitor knows x86_64 and aarch64"
#endif

static inline long sys_socket(int domain, int type, int protocol) {
    return boxer_syscall(__NR_socket, domain, type, protocol, 0, 0, 0);
}

static inline long sys_bind(int fd, const void *sa, unsigned len) {
    return boxer_syscall(__NR_bind, fd, (long)sa, len, 0, 0, 0);
}

static inline long sys_listen(int fd, int backlog) {
    return boxer_syscall(__NR_listen, fd, backlog, 0, 0, 0, 0);
}

static inline long sys_connect(int fd, const void *sa, unsigned len) {
    return boxer_syscall(__NR_connect, fd, (long)sa, len, 0, 0, 0);
}

static inline long sys_accept4(int fd, void *sa, void *len, int flags) {
    return boxer_syscall(__NR_accept4, fd, (long)sa, (long)len, flags, 0, 0);
}

static inline long sys_getsockname(int fd, void *sa, void *len) {
    return boxer_syscall(__NR_getsockname, fd, (long)sa, (long)len, 0, 0, 0);
}

static inline long sys_getpeername(int fd, void *sa, void *len) {
    return boxer_syscall(__NR_getpeername, fd, (long)sa, (long)len, 0, 0, 0);
}

static inline long sys_getsockopt(int fd, int level, int name, void *value, void *len) {
    return boxer_syscall(__NR_getsockopt, fd, level, name, (long)value, (long)len, 0);
}

static inline long sys_setsockopt(int fd, int level, int name, const void *value, unsigned len) {
    return boxer_syscall(__NR_setsockopt, fd, level, name, (long)value, len, 0);
}

static inline long sys_sendto(int fd, const void *data, size_t size, int flags, const void *sa,
                              unsigned len) {
    return boxer_syscall(__NR_sendto, fd, (long)data, (long)size, flags, (long)sa, len);
}

static inline long sys_sendmsg(int fd, const struct msghdr *m, int flags) {
    return boxer_syscall(__NR_sendmsg, fd, (long)m, flags, 0, 0, 0);
}

static inline long sys_recvmsg(int fd, struct msghdr *m, int flags) {
    return boxer_syscall(__NR_recvmsg, fd, (long)m, flags, 0, 0, 0);
}

static inline long sys_close(int fd) {
    return boxer_syscall(__NR_close, fd, 0, 0, 0, 0, 0);
}

static inline long sys_dup3(int from, int to, int flags) {
    return boxer_syscall(__NR_dup3, from, to, flags, 0, 0, 0);
}

static inline long sys_fcntl(int fd, int command, long argument) {
    return boxer_syscall(__NR_fcntl, fd, command, argument, 0, 0, 0);
}

static inline long sys_fstat(int fd, struct stat *st) {
    return boxer_syscall(__NR_fstat, fd, (long)st, 0, 0, 0, 0);
}

static inline long sys_openat(int dir, const char *path, int flags) {
    return boxer_syscall(__NR_openat, dir, (long)path, flags, 0, 0, 0);
}

static inline long sys_read(int fd, void *data, size_t size) {
    return boxer_syscall(__NR_read, fd, (long)data, (long)size, 0, 0, 0);
}

static inline long sys_mmap(size_t size, int prot, int flags, int fd) {
    return boxer_syscall(__NR_mmap, 0, (long)size, prot, flags, fd, 0);
}

/* Moves a mapping of this size to another place and ends what was there, in one step. */
static inline long sys_mremap_onto(void *from, void *onto, size_t size) {
    return boxer_syscall(__NR_mremap, (long)from, (long)size, (long)size,
                         MREMAP_MAYMOVE | MREMAP_FIXED, (long)onto, 0);
}

static inline long sys_munmap(void *at, size_t size) {
    return boxer_syscall(__NR_munmap, (long)at, (long)size, 0, 0, 0, 0);
}

static inline long sys_getpid(void) {
    return boxer_syscall(__NR_getpid, 0, 0, 0, 0, 0, 0);
}

static inline long sys_uname(struct utsname *u) {
    return boxer_syscall(__NR_uname, (long)u, 0, 0, 0, 0, 0);
}

static inline long sys_nanosleep(long ns) {
    struct timespec t = {0, ns};
    return boxer_syscall(__NR_nanosleep, (long)&t, 0, 0, 0, 0, 0);
}

static inline long sys_clock_gettime(int clock, struct timespec *t) {
    return boxer_syscall(__NR_clock_gettime, clock, (long)t, 0, 0, 0, 0);
}

static inline long sys_execve(const char *path, char *const *argv, char *const *envp) {
    return boxer_syscall(__NR_execve, (long)path, (long)argv, (long)envp, 0, 0, 0);
}

static inline long sys_execveat(int dir, const char *path, char *const *argv, char *const *envp,
                                int flags) {
    return boxer_syscall(__NR_execveat, dir, (long)path, (long)argv, (long)envp, flags, 0);
}

#endif
