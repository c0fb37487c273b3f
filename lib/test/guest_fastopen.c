/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of MSG_FASTOPEN and TCP_FASTOPEN_CONNECT to peers of every kind. */
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "guest.h"

#ifndef MSG_FASTOPEN
#define MSG_FASTOPEN 0x20000000
#endif
#ifndef TCP_FASTOPEN_CONNECT
#define TCP_FASTOPEN_CONNECT 30
#endif

static void expect(int fd, const char *text) {
    char back[64];
    size_t n = strlen(text);
    CHECK(recv(fd, back, n, MSG_WAITALL) == (ssize_t)n && memcmp(back, text, n) == 0);
}

static void await_writable(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    int error = -1;
    socklen_t len = sizeof error;
    CHECK(poll(&p, 1, 5000) == 1 && p.revents == POLLOUT);
    CHECK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0);
}

static ssize_t by_message(int fd, struct sockaddr_in *to, const char *text, int many) {
    struct iovec part = {(void *)text, strlen(text)};
    struct mmsghdr m = {
        .msg_hdr = {.msg_name = to, .msg_namelen = sizeof *to, .msg_iov = &part, .msg_iovlen = 1}};
    if (!many)
        return sendmsg(fd, &m.msg_hdr, MSG_FASTOPEN | MSG_NOSIGNAL);
    return sendmmsg(fd, &m, 1, MSG_FASTOPEN | MSG_NOSIGNAL) == 1 ? (ssize_t)m.msg_len : -1;
}

static void check_blocking(struct sockaddr_in *to) {
    for (int way = 0; way < 4; way++) {
        int fd = tcp(AF_INET);
        ssize_t n;
        errno = 77;
        if (way == 0)
            n = sendto(fd, "early", 5, MSG_FASTOPEN | MSG_NOSIGNAL, (struct sockaddr *)to,
                       sizeof *to);
        else if (way == 3)
            n = syscall(SYS_sendto, fd, "early", 5, MSG_FASTOPEN, to, sizeof *to);
        else
            n = by_message(fd, to, "early", way == 2);
        CHECK(n == 5 && errno == 77);
        expect(fd, "early");
        exchange(fd, "and later");
        CHECK_ERRNO(sendto(fd, "x", 1, MSG_FASTOPEN, (struct sockaddr *)to, sizeof *to), EISCONN);
        close(fd);
    }
}

/* Without a cookie the kernel takes no data: it is sent when there is a connection. */
static void check_nonblocking(struct sockaddr_in *to, int flag, int mode) {
    struct timeval limit = {3, 0}, now;
    socklen_t len = sizeof now;
    int fd = tcp(AF_INET);
    CHECK(fcntl(fd, F_SETFL, mode) == 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0);
    CHECK_ERRNO(sendto(fd, "early", 5, MSG_FASTOPEN | flag, (struct sockaddr *)to, sizeof *to),
                EINPROGRESS);
    CHECK(getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &now, &len) == 0 && now.tv_sec == 3);
    await_writable(fd);
    CHECK(fcntl(fd, F_SETFL, 0) == 0);
    exchange(fd, "later");
    close(fd);
}

static void check_option(struct sockaddr_in *to) {
    int yes = 1, fd = tcp(AF_INET);
    CHECK(setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &yes, sizeof yes) == 0);
    CHECK(connect(fd, (struct sockaddr *)to, sizeof *to) == 0);
    exchange(fd, "deferred or not");
    close(fd);
}

void guest_fastopen(void) {
    struct sockaddr_in to = v4(getenv("TEST_TARGET"), 80);
    if (strcmp(getenv("TEST_TARGET"), "100.80.0.2") == 0)
        to.sin_port = htons((uint16_t)echo_port());
    check_blocking(&to);
    check_nonblocking(&to, 0, O_NONBLOCK);
    check_nonblocking(&to, MSG_DONTWAIT, 0);
    check_option(&to);
}

void guest_fastopen_errors(void) {
    struct sockaddr_in refused = v4("100.80.0.6", 80), nobody = v4("100.80.9.9", 80), local;
    socklen_t len = sizeof local;
    int fd = tcp(AF_INET), udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr *sa = (struct sockaddr *)&refused;
    CHECK_ERRNO(sendto(fd, "x", 1, MSG_FASTOPEN, sa, sizeof refused), ECONNREFUSED);
    CHECK_ERRNO(sendto(fd, "x", 1, MSG_FASTOPEN, (struct sockaddr *)&nobody, sizeof nobody),
                EHOSTUNREACH);
    CHECK_ERRNO(sendto(fd, "x", 1, MSG_FASTOPEN, (struct sockaddr *)8, sizeof nobody), EFAULT);
#ifdef __GLIBC__ /* musl reads these itself */
    CHECK_ERRNO(sendmsg(fd, (struct msghdr *)8, MSG_FASTOPEN), EFAULT);
    CHECK_ERRNO(sendmmsg(fd, (struct mmsghdr *)8, 1, MSG_FASTOPEN), EFAULT);
#endif
    CHECK_ERRNO(sendto(-1, "x", 1, MSG_FASTOPEN, sa, sizeof refused), EBADF);
    CHECK_ERRNO(send(fd, "x", 1, MSG_NOSIGNAL), EPIPE);
    /* Another flag of another protocol: datagrams do not know MSG_FASTOPEN. */
    local = v4("127.0.0.1", 0);
    CHECK(bind(udp, (struct sockaddr *)&local, sizeof local) == 0);
    CHECK(getsockname(udp, (struct sockaddr *)&local, &len) == 0);
    CHECK(sendto(udp, "x", 1, MSG_FASTOPEN, (struct sockaddr *)&local, sizeof local) == 1);
    close(udp);
    close(fd);
}
