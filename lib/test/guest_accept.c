/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of bind, listen and accept. */
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>

#include "guest.h"

static int listener_at(const char *ip) {
    struct sockaddr_in a = v4(ip, 0);
    int fd = tcp(AF_INET);
    CHECK(bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 8) == 0);
    return fd;
}

static unsigned port_of(int fd) {
    return (unsigned)atoi(strrchr(name_of(fd, 0), ':') + 1);
}

void guest_bind(void) {
    struct sockaddr_in own = v4("100.80.0.3", 0), other = v4("100.80.0.2", 0);
    int fd = tcp(AF_INET), udp = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK_ERRNO(bind(fd, (struct sockaddr *)&other, sizeof other), EADDRNOTAVAIL);
    CHECK_ERRNO(bind(fd, (struct sockaddr *)16, sizeof other), EFAULT);
    CHECK(bind(fd, (struct sockaddr *)&own, sizeof own) == 0);
    CHECK(strncmp(name_of(fd, 0), "100.80.0.3:", 11) == 0);
    CHECK_ERRNO(bind(fd, (struct sockaddr *)&own, sizeof own), EINVAL);
    CHECK_ERRNO(bind(udp, (struct sockaddr *)&own, sizeof own), EADDRNOTAVAIL);
    close(fd);
    close(udp);
}

void guest_listen(void) {
    int fd = listener_at("0.0.0.0"), quiet = listener_at("127.0.0.1");
    CHECK(strncmp(name_of(fd, 0), "0.0.0.0:", 8) == 0);
    CHECK(listen(fd, 16) == 0); /* a second time is allowed */
    CHECK_ERRNO(listen(0, 1), ENOTSOCK);
    close(fd);
    close(quiet);
}

static int dial_self(int listener) {
    struct sockaddr_in a = v4("100.80.0.3", port_of(listener));
    int fd = tcp(AF_INET);
    CHECK(connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
    return fd;
}

/* A connection that was reset before it is accepted has no peer any more. */
static void accept_reset(int server, socklen_t room) {
    struct linger now = {1, 0};
    struct sockaddr_in peer = {0};
    int fd = dial_self(server);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
    fd = accept(server, (struct sockaddr *)&peer, &room);
    CHECK(fd >= 0 && room == sizeof peer && ntohl(peer.sin_addr.s_addr) == 0x64500003);
    close(fd);
}

void guest_accept_native(void) {
    struct sockaddr_in peer = {0};
    struct sockaddr_in6 any = v6("::", 0), peer6;
    socklen_t len = sizeof peer;
    int no = 0, six = tcp(AF_INET6), server = listener_at("0.0.0.0"), a = dial_self(server), b;
    b = accept4(server, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    CHECK(b >= 0 && len == sizeof peer && ntohl(peer.sin_addr.s_addr) == 0x64500003);
    CHECK((fcntl(b, F_GETFL) & O_NONBLOCK) && (fcntl(b, F_GETFD) & FD_CLOEXEC));
    CHECK(strncmp(name_of(b, 0), "100.80.0.3:", 11) == 0);
    CHECK(strncmp(name_of(b, 1), "100.80.0.3:", 11) == 0);
    close(a);
    close(b);
    a = dial_self(server);
    memset(&peer, 0x5a, sizeof peer);
    len = 6; /* cut short: the family and the port, nothing after them */
    b = accept(server, (struct sockaddr *)&peer, &len);
    CHECK(b >= 0 && len == sizeof peer && !memcmp((char *)&peer + 4, "\x64\x50\x5a\x5a", 4));
    close(a);
    close(b);
    a = dial_self(server);
    CHECK((b = accept(server, NULL, NULL)) >= 0);
    close(a);
    close(b);
    a = dial_self(server);
    CHECK_ERRNO(accept(server, (struct sockaddr *)&peer, NULL), EFAULT);
    close(a);
    accept_reset(server, sizeof peer);
    a = dial_self(server);
    len = sizeof peer;
    CHECK_ERRNO(accept(server, (struct sockaddr *)16, &len), EFAULT);
    close(a);
    setsockopt(six, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    CHECK(bind(six, (struct sockaddr *)&any, sizeof any) == 0 && listen(six, 8) == 0);
    a = dial_self(six);
    len = sizeof peer6;
    b = accept(six, (struct sockaddr *)&peer6, &len);
    CHECK(b >= 0 && len == sizeof peer6 && IN6_IS_ADDR_V4MAPPED(&peer6.sin6_addr));
    CHECK(ntohl(peer6.sin6_addr.s6_addr32[3]) == 0x64500003);
    close(a);
    close(b);
    close(six);
    close(server);
}

static void check_hello(int fd) {
    char text[6] = {0};
    size_t n = 0;
    while (n < 5) {
        ssize_t r = recv(fd, text + n, 5 - n, 0);
        if (r < 0 && errno == EAGAIN)
            continue;
        CHECK(r > 0);
        n += (size_t)r;
    }
    CHECK(strcmp(text, "hello") == 0);
}

void guest_accept_signal(void) {
    struct sockaddr_in any = v4("0.0.0.0", 0), peer;
    struct linger linger = {1, 7};
    int yes = 1, idle = 33, size = 50000, value = 0, server = tcp(AF_INET), fd;
    socklen_t len = sizeof peer;
    setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(server, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
    setsockopt(server, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(server, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    setsockopt(server, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    CHECK(bind(server, (struct sockaddr *)&any, sizeof any) == 0 && listen(server, 8) == 0);
    errno = 77;
    fd = accept(server, (struct sockaddr *)&peer, &len); /* a stale one comes first */
    CHECK(fd >= 0 && errno == 77);
    CHECK(len == sizeof peer && ntohl(peer.sin_addr.s_addr) == 0x64500009);
    CHECK(ntohs(peer.sin_port) == 5555);
    /* It is between other addresses than the node's own: ADDRESS says what to show. */
    CHECK(strcmp(name_of(fd, 0), "100.80.0.3:1234") == 0);
    CHECK(strcmp(name_of(fd, 1), "100.80.0.5:6379") == 0);
    CHECK(!(fcntl(fd, F_GETFL) & O_NONBLOCK) && !(fcntl(fd, F_GETFD) & FD_CLOEXEC));
    len = sizeof value;
    CHECK(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &len) == 0 && value == 1);
    CHECK(getsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &value, &len) == 0 && value == 33);
    CHECK(getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &value, &len) == 0 && value == 100000);
    len = sizeof linger;
    CHECK(getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len) == 0 && linger.l_linger == 7);
    check_hello(fd);
    exchange(fd, "to the real one");
    linger.l_onoff = 0;
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close(fd);
    CHECK((fd = accept4(server, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
    CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) && (fcntl(fd, F_GETFD) & FD_CLOEXEC));
    check_hello(fd);
    close(fd);
    close(server);
}

/* The listener decides the family, whatever was delivered. */
void guest_accept_signal_v6(void) {
    struct sockaddr_in6 any = v6("::", 0), peer;
    socklen_t len = sizeof peer;
    int no = 0, fd, server = tcp(AF_INET6);
    setsockopt(server, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    CHECK(bind(server, (struct sockaddr *)&any, sizeof any) == 0 && listen(server, 8) == 0);
    CHECK((fd = accept(server, (struct sockaddr *)&peer, &len)) >= 0);
    CHECK(len == sizeof peer && IN6_IS_ADDR_V4MAPPED(&peer.sin6_addr));
    CHECK(ntohl(peer.sin6_addr.s6_addr32[3]) == 0x64500009 && ntohs(peer.sin6_port) == 5555);
    check_hello(fd);
    close(fd);
    close(server);
}

/* A stale signal in front does not end an edge-triggered guest's loop. */
void guest_accept_edge(void) {
    int server = listener_at("0.0.0.0"), taken = 0, fd;
    struct pollfd p = {.fd = server, .events = POLLIN};
    CHECK(fcntl(server, F_SETFL, O_NONBLOCK) == 0);
    while (taken < 2) {
        CHECK(poll(&p, 1, 5000) == 1);
        while ((fd = accept(server, NULL, NULL)) >= 0) {
            check_hello(fd);
            close(fd);
            taken++;
        }
        CHECK(errno == EAGAIN);
    }
    CHECK_ERRNO(accept(server, NULL, NULL), EAGAIN);
    close(server);
}

/* EMFILE with room for so few descriptors. */
static void accept_with_room(int room) {
    int server = listener_at("0.0.0.0"), fd;
    struct pollfd p = {.fd = server, .events = POLLIN};
    struct rlimit limit, old;
    CHECK(poll(&p, 1, 5000) == 1 && getrlimit(RLIMIT_NOFILE, &old) == 0);
    limit = old;
    limit.rlim_cur = (rlim_t)(server + 1 + room);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    fd = accept(server, NULL, NULL);
    CHECK(fd == -1 && errno == EMFILE);
    CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
    close(server);
}

/* Without room for the real socket: EMFILE, and it is there later. */
void guest_accept_limit(void) {
    accept_with_room(2); /* the signal, the conversation, no more */
}

/* Without room for the conversation the signal connection says so. */
void guest_accept_declined(void) {
    accept_with_room(1);
}
