/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of syscall(): the same answers as through libc's functions. */
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include "guest.h"

static void check_sockets(void) {
    struct sockaddr_in to = v4("100.80.0.2", echo_port()), own = v4("100.80.0.3", 0), seen;
    socklen_t len = sizeof seen;
    int fd = (int)syscall(SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), server, other;
    errno = 77;
    CHECK(syscall(SYS_connect, fd, &to, sizeof to) == 0 && errno == 77);
    exchange(fd, "by number");
    CHECK(syscall(SYS_getpeername, fd, &seen, &len) == 0 && len == sizeof seen);
    CHECK(seen.sin_addr.s_addr == to.sin_addr.s_addr && seen.sin_port == to.sin_port);
    CHECK(syscall(SYS_getsockname, fd, &seen, &len) == 0);
    CHECK(seen.sin_addr.s_addr == own.sin_addr.s_addr);
    CHECK(syscall(SYS_sendto, fd, "x", 1, MSG_NOSIGNAL, NULL, 0) == 1);
    CHECK_ERRNO(syscall(SYS_connect, fd, &to, sizeof to), EISCONN);
    close(fd);
    server = tcp(AF_INET);
    CHECK(syscall(SYS_bind, server, &own, sizeof own) == 0 && syscall(SYS_listen, server, 4) == 0);
    CHECK(getsockname(server, (struct sockaddr *)&own, &len) == 0);
    for (int i = 0; i < 2; i++) {
        fd = tcp(AF_INET);
        CHECK(connect(fd, (struct sockaddr *)&own, sizeof own) == 0);
        len = sizeof seen;
        other = i ? (int)syscall(SYS_accept4, server, &seen, &len, SOCK_CLOEXEC)
                  : (int)syscall(SYS_accept, server, &seen, &len);
        CHECK(other >= 0 && seen.sin_addr.s_addr == own.sin_addr.s_addr);
        close(other);
        close(fd);
    }
    close(server);
}

/* All six arguments arrive, the last of them by the stack on x86. */
static void check_arguments(void) {
    char text[5] = {0};
    int fd = memfd_create("six", MFD_CLOEXEC);
    CHECK(fd >= 0 && pwrite(fd, "fifth", 5, 8192) == 5);
    char *at = (char *)syscall(SYS_mmap, NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 8192);
    CHECK(at != MAP_FAILED && memcmp(at, "fifth", 5) == 0);
    CHECK(munmap(at, 4096) == 0);
    CHECK(syscall(SYS_pread64, fd, text, 5, 8192) == 5 && memcmp(text, "fifth", 5) == 0);
    CHECK_ERRNO(syscall(SYS_close, -1), EBADF);
    CHECK_ERRNO(syscall(100000), ENOSYS);
    CHECK_ERRNO(syscall(-5), ENOSYS);
    CHECK_ERRNO(syscall(SYS_connect, -1, NULL, 0), EBADF);
    close(fd);
}

#if defined(__x86_64__) && defined(__GLIBC__)
static int reached;

static void other_stack(void) {
    reached = 1;
    _exit(0);
}

/* As libc's own: nothing of ours is on the stack that a child returns on. */
static void check_clone(void) {
    static char stack[65536] __attribute__((aligned(16)));
    void **top = (void **)(void *)(stack + sizeof stack - 64);
    int status;
    *top = (void *)other_stack; /* where the child's return leads */
    pid_t pid = (pid_t)syscall(SYS_clone, CLONE_VM | CLONE_VFORK | SIGCHLD, top, 0, 0, 0);
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0 && reached);
}
#else
static void check_clone(void) {}
#endif

void guest_syscall(void) {
    struct utsname u;
    CHECK(syscall(SYS_uname, &u) == 0 && strcmp(u.nodename, "front") == 0);
    CHECK_ERRNO(syscall(SYS_uname, NULL), EFAULT);
    check_sockets();
    check_arguments();
    check_clone();
}
