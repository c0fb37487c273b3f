/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of connect, getsockname and getpeername. */
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#include "guest.h"

static int dial4(int fd, const char *ip, unsigned port) {
    struct sockaddr_in a = v4(ip, port);
    return connect(fd, (struct sockaddr *)&a, sizeof a);
}

static int dial6(int fd, const char *ip, unsigned port) {
    struct sockaddr_in6 a = v6(ip, port);
    return connect(fd, (struct sockaddr *)&a, sizeof a);
}

static int begins(const char *text, const char *with) {
    return strncmp(text, with, strlen(with)) == 0;
}

void guest_native(void) {
    char want[64];
    int fd = tcp(AF_INET);
    errno = 77;
    CHECK(dial4(fd, "100.80.0.2", echo_port()) == 0);
    CHECK(errno == 77);
    exchange(fd, "native");
    snprintf(want, sizeof want, "100.80.0.2:%u", echo_port());
    CHECK(strcmp(name_of(fd, 1), want) == 0);
    CHECK(begins(name_of(fd, 0), "100.80.0.3:"));
    CHECK(errno == 77);
    CHECK_ERRNO(dial4(fd, "100.80.0.2", echo_port()), EISCONN);
    CHECK_ERRNO(dial4(fd, "100.80.0.4", 80), EISCONN);
    CHECK_ERRNO(dial4(fd, "100.80.9.9", 80), EISCONN);
    close(fd);
}

void guest_native_v6(void) {
    char want[64];
    int no = 0, fd = tcp(AF_INET6);
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    CHECK(dial6(fd, "::ffff:100.80.0.2", echo_port()) == 0);
    exchange(fd, "mapped");
    snprintf(want, sizeof want, "[::ffff:100.80.0.2]:%u", echo_port());
    CHECK(strcmp(name_of(fd, 1), want) == 0);
    CHECK(begins(name_of(fd, 0), "[::ffff:100.80.0.3]:"));
    close(fd);
}

static void await(int epoll, int fd) {
    struct epoll_event e;
    int error = 0;
    socklen_t len = sizeof error;
    CHECK(epoll_wait(epoll, &e, 1, 5000) == 1);
    CHECK(e.events == EPOLLOUT);
    CHECK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0);
}

/* As nginx does it: registered before connect, edge-triggered. */
static int register_first(int fd) {
    struct epoll_event e = {.events = EPOLLOUT | EPOLLIN | EPOLLET};
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    CHECK(epoll >= 0 && fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) == 0);
    return epoll;
}

static void block_again(int fd) {
    CHECK(fcntl(fd, F_SETFL, 0) == 0);
}

void guest_native_nonblocking(void) {
    int fd = tcp(AF_INET), epoll = register_first(fd);
    CHECK_ERRNO(dial4(fd, "100.80.0.2", echo_port()), EINPROGRESS);
    await(epoll, fd);
    CHECK(dial4(fd, "100.80.0.2", echo_port()) == 0); /* once, as natively */
    CHECK_ERRNO(dial4(fd, "100.80.0.2", echo_port()), EISCONN);
    block_again(fd);
    exchange(fd, "later");
    close(fd);
    close(epoll);
}

void guest_connect_errors(void) {
    struct sockaddr_in a = v4("100.80.0.2", 1);
    int fd = tcp(AF_INET), six = tcp(AF_INET6), yes = 1;
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(mprotect(page + 4096, 4096, PROT_NONE) == 0);
    CHECK_ERRNO(connect(fd, (struct sockaddr *)8, sizeof a), EFAULT);
    CHECK_ERRNO(connect(fd, NULL, sizeof a), EFAULT);
    CHECK_ERRNO(connect(fd, (struct sockaddr *)(page + 4096 - 8), sizeof a), EFAULT);
    CHECK_ERRNO(connect(fd, (struct sockaddr *)&a, 4), EINVAL);
    CHECK_ERRNO(connect(fd, (struct sockaddr *)&a, 1000), EINVAL);
    CHECK_ERRNO(connect(-1, (struct sockaddr *)&a, sizeof a), EBADF);
    CHECK_ERRNO(connect(0, (struct sockaddr *)&a, sizeof a), ENOTSOCK);
    CHECK_ERRNO(dial4(fd, "100.80.0.2", 1), ECONNREFUSED);
    CHECK_ERRNO(dial4(fd, "100.80.200.200", 80), EHOSTUNREACH);
    CHECK_ERRNO(dial4(fd, "100.80.0.6", 80), ECONNREFUSED);
    CHECK_ERRNO(dial4(six, "100.80.0.4", 80), EINVAL);
    CHECK_ERRNO(dial6(fd, "::ffff:100.80.0.4", 80), EAFNOSUPPORT);
    setsockopt(six, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof yes);
    CHECK_ERRNO(dial6(six, "::ffff:100.80.0.4", 80), ENETUNREACH);
    CHECK_ERRNO(dial6(six, "::ffff:100.80.0.2", 80), ENETUNREACH);
    close(fd);
    close(six);
    /* An address that ends with its page is read to its end and no further. */
    fd = tcp(AF_INET);
    a = v4("100.80.0.2", echo_port());
    memcpy(page + 4096 - sizeof a, &a, sizeof a);
    CHECK(connect(fd, (struct sockaddr *)(page + 4096 - sizeof a), sizeof a) == 0);
    exchange(fd, "edge");
    close(fd);
}

void guest_direct(void) {
    int no = 0, fd = tcp(AF_INET), six = tcp(AF_INET6);
    errno = 77;
    CHECK(dial4(fd, "100.80.0.5", 6379) == 0);
    CHECK(errno == 77);
    exchange(fd, "direct");
    CHECK(strcmp(name_of(fd, 1), "100.80.0.5:6379") == 0);
    CHECK(strcmp(name_of(fd, 0), "100.80.0.3:1234") == 0);
    CHECK_ERRNO(dial4(fd, "100.80.0.5", 6379), EISCONN);
    close(fd);
    setsockopt(six, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    CHECK(dial6(six, "::ffff:100.80.0.5", 6379) == 0);
    exchange(six, "direct mapped");
    close(six);
}

void guest_direct_nonblocking(void) {
    int fd = tcp(AF_INET), epoll = register_first(fd);
    CHECK_ERRNO(dial4(fd, "100.80.0.5", 6379), EINPROGRESS);
    await(epoll, fd);
    CHECK(dial4(fd, "100.80.0.5", 6379) == 0);
    CHECK_ERRNO(dial4(fd, "100.80.0.5", 6379), EISCONN);
    block_again(fd);
    exchange(fd, "direct later");
    close(fd);
    close(epoll);
}

/* What the guest set is as it set it, whatever the monitor needed meanwhile. */
void guest_direct_options(void) {
    for (int want = 0; want < 2; want++) {
        int got = -1, fd = tcp(AF_INET);
        socklen_t len = sizeof got;
        CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &want, sizeof want) == 0);
        CHECK(dial4(fd, "100.80.0.5", 6379) == 0);
        CHECK(getsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &got, &len) == 0 && got == want);
        exchange(fd, "direct options");
        close(fd);
    }
}

/* A socket that has a port keeps it. */
void guest_direct_bound(void) {
    int no = 0, fd = tcp(AF_INET), six = tcp(AF_INET6);
    struct sockaddr_in own = v4("100.80.0.3", 0);
    struct sockaddr_in6 any = v6("::", 0);
    CHECK(bind(fd, (struct sockaddr *)&own, sizeof own) == 0);
    CHECK(dial4(fd, "100.80.0.5", 6379) == 0);
    exchange(fd, "bound");
    close(fd);
    setsockopt(six, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    CHECK(bind(six, (struct sockaddr *)&any, sizeof any) == 0);
    CHECK(dial6(six, "::ffff:100.80.0.5", 6379) == 0);
    exchange(six, "bound to any");
    close(six);
}

void guest_hold(void) {
    const char *target = getenv("TEST_HOLD_TARGET") ? getenv("TEST_HOLD_TARGET") : "100.80.0.4";
    char mapped[64];
    int no = 0, fd = tcp(AF_INET), epoll, six = tcp(AF_INET6);
    struct sockaddr_in own = v4("100.80.0.3", 0);
    CHECK(dial4(fd, target, 80) == 0);
    exchange(fd, "held");
    CHECK(strcmp(name_of(fd, 1), "100.80.0.5:6379") == 0); /* what ADDRESS says */
    close(fd);
    fd = tcp(AF_INET);
    epoll = register_first(fd);
    CHECK_ERRNO(dial4(fd, target, 80), EINPROGRESS);
    CHECK_ERRNO(dial4(fd, target, 80), EALREADY);
    await(epoll, fd);
    block_again(fd);
    exchange(fd, "held later");
    close(fd);
    close(epoll);
    setsockopt(six, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    snprintf(mapped, sizeof mapped, "::ffff:%s", target);
    CHECK(dial6(six, mapped, 80) == 0);
    exchange(six, "held mapped");
    close(six);
    fd = tcp(AF_INET); /* one that is bound already */
    CHECK(bind(fd, (struct sockaddr *)&own, sizeof own) == 0 && dial4(fd, target, 80) == 0);
    exchange(fd, "held bound");
    close(fd);
}

/* The kernel says EPIPE here, which connect(2) does not know. */
void guest_ended_early(void) {
    int fd = tcp(AF_INET);
    CHECK_ERRNO(dial4(fd, "100.80.0.4", 80), ECONNRESET);
    close(fd);
}

void guest_closed_stdio(void) {
    char byte;
    int fd, kept = dup(2);
    close(0);
    close(1);
    close(2);
    fd = tcp(AF_INET);
    if (fd != 0 || dial4(fd, "100.80.0.5", 80) != 0)
        _exit(3);
    if (send(fd, "x", 1, 0) != 1 || recv(fd, &byte, 1, 0) != 1 || byte != 'x')
        _exit(4);
    if (fcntl(1, F_GETFD) != -1 || fcntl(2, F_GETFD) != -1)
        _exit(5); /* the monitor holds one of them */
    close(fd);
    _exit(kept < 0);
}

void guest_other_sockets(void) {
    struct sockaddr_in a = v4("100.80.0.2", 9);
    struct sockaddr_in6 b = v6("::1", 0);
    struct sockaddr_in loop = v4("127.68.0.2", 9);
    int pair[2], udp = socket(AF_INET, SOCK_DGRAM, 0), six = tcp(AF_INET6);
    char name[128];
    socklen_t len = sizeof name;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK(getpeername(pair[0], (struct sockaddr *)name, &len) == 0 && len == 2);
    CHECK_ERRNO(getpeername(0, (struct sockaddr *)name, &len), ENOTSOCK);
    CHECK(connect(udp, (struct sockaddr *)&a, sizeof a) == 0 || errno == ENETUNREACH);
    CHECK(connect(udp, (struct sockaddr *)&loop, sizeof loop) == 0);
    CHECK(begins(name_of(udp, 1), "127.68.0.2:")); /* datagrams are left alone */
    CHECK(bind(six, (struct sockaddr *)&b, sizeof b) == 0 && listen(six, 1) == 0);
    CHECK(begins(name_of(six, 0), "[::1]:"));
    close(pair[0]);
    close(pair[1]);
    close(udp);
    close(six);
}
