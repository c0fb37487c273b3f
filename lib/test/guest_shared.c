/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cases of a node that shares its machine's loopback (BOXER_LOOPBACK), here as
 * 127.68.0.3. What the kernel has is read from its own list.
 */
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "guest.h"

enum { LISTENING = 0x0a };

static int bind4(int fd, const char *ip, unsigned port) {
    struct sockaddr_in a = v4(ip, port);
    return bind(fd, (struct sockaddr *)&a, sizeof a);
}

static int bind6(int fd, const char *ip, unsigned port) {
    struct sockaddr_in6 a = v6(ip, port);
    return bind(fd, (struct sockaddr *)&a, sizeof a);
}

static int dial(int fd, const char *ip, unsigned port) {
    struct sockaddr_in a = v4(ip, port);
    return connect(fd, (struct sockaddr *)&a, sizeof a);
}

static unsigned port_of(int fd) {
    return (unsigned)atoi(strrchr(name_of(fd, 0), ':') + 1);
}

/* Whether the kernel lists a listener at this address: 8 hex digits, or 32. */
static int kernel_listens(const char *list, const char *ip, unsigned port) {
    char line[512], local[64], wanted[64];
    unsigned state;
    int found = 0;
    FILE *f = fopen(list, "r");
    CHECK(f);
    snprintf(wanted, sizeof wanted, "%s:%04X", ip, port);
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "%*d: %63s %*s %x", local, &state) == 2 && state == LISTENING)
            found += strcmp(local, wanted) == 0;
    fclose(f);
    return found;
}

#define OWN4 "0300447F"
#define OWN6 "0000000000000000FFFF00000300447F"
#define ONE6 "00000000000000000000000001000000"

/* A connection of the guest to itself, and how both ends see each other. */
static void meet(int server, const char *ip, unsigned port, const char *shown) {
    struct sockaddr_in peer;
    socklen_t len = sizeof peer;
    char local[64], far[64];
    int a = tcp(AF_INET), b;
    CHECK(dial(a, ip, port) == 0);
    b = accept(server, (struct sockaddr *)&peer, &len);
    CHECK(b >= 0 && peer.sin_family == AF_INET);
    snprintf(local, sizeof local, "%s:%u", shown, port_of(a));
    snprintf(far, sizeof far, "%s:%u", shown, port);
    CHECK(strcmp(name_of(a, 0), local) == 0 && strcmp(name_of(a, 1), far) == 0);
    CHECK(strcmp(name_of(b, 0), far) == 0 && strcmp(name_of(b, 1), local) == 0);
    CHECK(ntohs(peer.sin_port) == port_of(a));
    CHECK(strcmp(inet_ntoa(peer.sin_addr), shown) == 0);
    close(a);
    close(b);
}

static void any_address(void) {
    int server = tcp(AF_INET), other = tcp(AF_INET);
    CHECK(bind4(server, "0.0.0.0", 80) == 0);
    CHECK(strcmp(name_of(server, 0), "0.0.0.0:80") == 0);
    CHECK(listen(server, 8) == 0);
    CHECK(kernel_listens("/proc/net/tcp", OWN4, 64592) == 1);
    CHECK(strcmp(name_of(server, 0), "0.0.0.0:80") == 0);
    CHECK_ERRNO(bind4(other, "127.0.0.1", 80), EADDRINUSE);
    CHECK_ERRNO(bind4(other, "100.80.0.3", 80), EADDRINUSE);
    CHECK_ERRNO(bind4(other, "100.80.0.2", 81), EADDRNOTAVAIL);
    CHECK_ERRNO(bind4(other, "0.0.0.0", 64592), EADDRINUSE);
    CHECK_ERRNO(bind4(other, "0.0.0.0", 64601), EADDRINUSE); /* kept for 89 */
    meet(server, "100.80.0.3", 80, "100.80.0.3");
    meet(server, "127.0.0.1", 80, "127.0.0.1");
    close(server);
    close(other);
}

static void own_and_loopback(void) {
    int own = tcp(AF_INET), quiet = tcp(AF_INET);
    CHECK(bind4(own, "100.80.0.3", 443) == 0 && listen(own, 1) == 0);
    CHECK(strcmp(name_of(own, 0), "100.80.0.3:443") == 0);
    meet(own, "100.80.0.3", 443, "100.80.0.3");
    CHECK(bind4(quiet, "127.0.0.1", 0) == 0 && listen(quiet, 1) == 0);
    CHECK(strncmp(name_of(quiet, 0), "127.0.0.1:", 10) == 0 && port_of(quiet) != 0);
    CHECK(kernel_listens("/proc/net/tcp", OWN4, port_of(quiet)) == 1);
    close(own);
    close(quiet);
}

static void six(void) {
    int no = 0, yes = 1, both = tcp(AF_INET6), only = tcp(AF_INET6), one = tcp(AF_INET6), a, b;
    struct sockaddr_in6 to = v6("::ffff:127.0.0.1", 90);
    setsockopt(both, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    CHECK(bind6(both, "::", 90) == 0 && strcmp(name_of(both, 0), "[::]:90") == 0);
    CHECK(listen(both, 1) == 0 && strcmp(name_of(both, 0), "[::]:90") == 0);
    CHECK(kernel_listens("/proc/net/tcp6", OWN6, 64602) == 1);
    a = tcp(AF_INET6);
    setsockopt(a, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    CHECK(connect(a, (struct sockaddr *)&to, sizeof to) == 0);
    CHECK((b = accept(both, NULL, NULL)) >= 0);
    CHECK(strcmp(name_of(a, 1), "[::ffff:127.0.0.1]:90") == 0);
    CHECK(strncmp(name_of(b, 1), "[::ffff:127.0.0.1]:", 19) == 0);
    CHECK(strcmp(name_of(b, 0), "[::ffff:127.0.0.1]:90") == 0);
    close(a);
    close(b);
    setsockopt(only, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof yes);
    CHECK(bind6(only, "::", 90) == 0 && listen(only, 1) == 0);
    CHECK(strcmp(name_of(only, 0), "[::]:90") == 0);
    CHECK(kernel_listens("/proc/net/tcp6", ONE6, 64602) == 1);
    CHECK(bind6(one, "::1", 0) == 0 && strncmp(name_of(one, 0), "[::1]:", 6) == 0);
    close(both);
    close(only);
    close(one);
}

/* Without a bind; and a socket keeps its name over fork, dup and syscall(). */
static void unbound(void) {
    int status, server = tcp(AF_INET), again;
    struct sockaddr_in any = v4("0.0.0.0", 91);
    CHECK(listen(server, 1) == 0 && strncmp(name_of(server, 0), "0.0.0.0:", 8) == 0);
    CHECK(kernel_listens("/proc/net/tcp", OWN4, port_of(server)) == 1);
    close(server);
    server = tcp(AF_INET);
    CHECK(syscall(SYS_bind, server, &any, sizeof any) == 0);
    again = fcntl(server, F_DUPFD_CLOEXEC, 0);
    CHECK(again >= 0);
    close(server);
    if (fork() == 0) {
        CHECK(strcmp(name_of(again, 0), "0.0.0.0:91") == 0 && listen(again, 1) == 0);
        CHECK(kernel_listens("/proc/net/tcp", OWN4, 64603) == 1);
        _exit(0);
    }
    CHECK(wait(&status) > 0 && status == 0);
    close(again);
}

/* Peers see the node's own address, also where the guest had bound a socket. */
static void outgoing(void) {
    int fd = tcp(AF_INET);
    CHECK(bind4(fd, "0.0.0.0", 0) == 0 && dial(fd, "100.80.0.2", echo_port()) == 0);
    exchange(fd, "bound");
    CHECK(strncmp(name_of(fd, 0), "100.80.0.3:", 11) == 0);
    close(fd);
    fd = tcp(AF_INET);
    CHECK_ERRNO(dial(fd, "127.0.0.1", 9), ECONNREFUSED);
    CHECK_ERRNO(dial(fd, "100.80.0.3", 9), ECONNREFUSED);
    close(fd);
    fd = tcp(AF_INET);
    CHECK(dial(fd, "100.80.0.5", 80) == 0); /* with a preface */
    exchange(fd, "direct");
    close(fd);
}

void guest_shared(void) {
    any_address();
    own_and_loopback();
    six();
    unbound();
    outgoing();
}
