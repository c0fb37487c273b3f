/* SPDX-License-Identifier: Apache-2.0 */
/* The rules for nodes that share the machine's loopback. */
#include "shared.h"

#include <errno.h>

#include "libc.h"
#include "mem.h"
#include "sys.h"
#include "view.h"

#define LOOPBACK 0x7f000001u

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum { LOW_PORTS = 1024 };

/*
 * What the guest asked for when it bound a socket. The monitor keeps nothing, so
 * the socket does: in switches for what datagrams tell their receiver, which are
 * without effect on TCP and go where the socket goes (fork, exec, SCM_RIGHTS).
 */
enum asked { ASKED_OWN = 0, ASKED_ANY = IP_RECVORIGDSTADDR, ASKED_LOOPBACK = IP_RECVOPTS };

static void mark(int fd, enum asked asked) {
    int yes = 1;
    if (asked != ASKED_OWN)
        sys_setsockopt(fd, IPPROTO_IP, (int)asked, &yes, sizeof yes);
}

static enum asked asked_for(int fd) {
    if (socket_option(fd, IPPROTO_IP, ASKED_ANY) > 0)
        return ASKED_ANY;
    return socket_option(fd, IPPROTO_IP, ASKED_LOOPBACK) > 0 ? ASKED_LOOPBACK : ASKED_OWN;
}

uint16_t shared_kernel_port(uint16_t port) {
    return port && port < LOW_PORTS && shared_own() ? (uint16_t)(port + LOW_PORTS_AT) : port;
}

uint16_t shared_guest_port(uint16_t port) {
    return port > LOW_PORTS_AT && shared_own() ? (uint16_t)(port - LOW_PORTS_AT) : port;
}

static int is_any6(const union address *a, socklen_t len) {
    return a->any.sa_family == AF_INET6 && len >= V6_LEN_MIN &&
           IN6_IS_ADDR_UNSPECIFIED(&a->v6.sin6_addr);
}

static int is_own_overlay(uint32_t ip) {
    struct table_info info;
    return view_info(&info) && ip == info.header.own_overlay;
}

static int is_overlay(uint32_t ip) {
    const struct environment *e = environment();
    return e && e->cidr_mask && (ip & e->cidr_mask) == e->cidr_ip;
}

/*
 * Only IPv6, which the overlay has not: no peer comes this way, and the
 * machine's ::1 is the one address there is. If others have the port, any.
 */
static long bind_v6only(int fd, union address *a) {
    long result;
    a->v6.sin6_addr.s6_addr[15] = 1;
    address_set_port(a, shared_kernel_port(ntohs(a->v6.sin6_port)));
    result = sys_bind(fd, a, V6_LEN);
    if (result == -EADDRINUSE || result == -EACCES) {
        a->v6.sin6_port = 0;
        result = sys_bind(fd, a, V6_LEN);
    }
    return result;
}

static long bind_own(int fd, struct endpoint e, enum asked asked) {
    union address a;
    long result;
    if (e.port > LOW_PORTS_AT)
        return -EADDRINUSE; /* taken by the low ports */
    e.ip = shared_own();
    e.port = shared_kernel_port(e.port);
    result = sys_bind(fd, &a, address_make(&a, &e));
    if (result == 0)
        mark(fd, asked);
    return result;
}

long shared_bind(int fd, const void *sa, socklen_t len) {
    struct endpoint e;
    union address a;
    if (!address_from_guest(&a, sa, len) || !is_tcp(fd))
        return sys_bind(fd, sa, len);
    if (is_any6(&a, len)) {
        if (socket_option(fd, IPPROTO_IPV6, IPV6_V6ONLY) > 0) {
            long result = bind_v6only(fd, &a);
            if (result == 0)
                mark(fd, ASKED_ANY);
            return result;
        }
        return bind_own(fd, (struct endpoint){0, ntohs(a.v6.sin6_port), AF_INET6}, ASKED_ANY);
    }
    if (!endpoint_of(&a, len, &e))
        return sys_bind(fd, sa, len);
    if (e.ip == INADDR_ANY)
        return bind_own(fd, e, ASKED_ANY);
    if (e.ip == LOOPBACK)
        return bind_own(fd, e, ASKED_LOOPBACK);
    if (e.ip == shared_own() || is_own_overlay(e.ip))
        return bind_own(fd, e, ASKED_OWN);
    return is_overlay(e.ip) ? -EADDRNOTAVAIL : sys_bind(fd, sa, len);
}

void shared_before_listen(int fd) {
    union address a;
    socklen_t len = sizeof a;
    if (!shared_own() || !is_tcp(fd) || sys_getsockname(fd, &a, &len) < 0 || a.v4.sin_port)
        return; /* the port is at the same place in both families */
    if (is_any6(&a, len) || (a.any.sa_family == AF_INET && !a.v4.sin_addr.s_addr))
        shared_bind(fd, &a, len);
}

int shared_is_private(int fd) {
    return shared_own() && asked_for(fd) == ASKED_LOOPBACK;
}

/* The alias is an address for connections only, so that both ends know them. */
static void bind_alias(int fd, uint16_t family) {
    struct endpoint alias = {shared_own() + ALIAS_OFFSET, 0, family};
    union address a;
    socklen_t len = sizeof a;
    int yes = 1;
    if (sys_getsockname(fd, &a, &len) < 0 || a.v4.sin_port)
        return;
    sys_setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    sys_bind(fd, &a, address_make(&a, &alias));
}

int shared_translate(int fd, const void *sa, socklen_t len, union address *to) {
    struct endpoint e;
    if (!shared_own() || !address_from_guest(to, sa, len) || !endpoint_of(to, len, &e) ||
        (e.ip != LOOPBACK && e.ip != INADDR_ANY) || !is_tcp(fd))
        return 0;
    bind_alias(fd, e.family);
    address_set_ip(to, shared_own());
    address_set_port(to, shared_kernel_port(e.port));
    return 1;
}

long shared_connect(int fd, const void *sa, socklen_t len) {
    union address to;
    return shared_translate(fd, sa, len, &to) ? kernel_connect(fd, &to, len)
                                              : kernel_connect(fd, sa, len);
}

/* The other end, if there is one. */
static int other_end(int local, int fd, struct endpoint *e) {
    union address a;
    socklen_t len = sizeof a;
    long result = local ? sys_getpeername(fd, &a, &len) : sys_getsockname(fd, &a, &len);
    return result == 0 && endpoint_of(&a, len, e);
}

/* Not connected, and it never was: its name is what it was bound to. */
static int merely_bound(int fd) {
    struct endpoint peer;
    return !other_end(1, fd, &peer) && !segments_received(fd);
}

int shared_peer(struct endpoint *peer) {
    if (!shared_own() || peer->ip != shared_own() + ALIAS_OFFSET)
        return 0;
    peer->ip = LOOPBACK;
    return 1;
}

int shared_name(int local, int fd, struct endpoint *e) {
    struct endpoint other = {0, 0, 0};
    uint32_t own = shared_own();
    if (!own)
        return 0;
    if (shared_peer(e))
        return 1;
    if (e->ip != own)
        return 0;
    if (other_end(local, fd, &other) && shared_peer(&other)) {
        e->ip = LOOPBACK;
    } else {
        enum asked asked = local ? asked_for(fd) : ASKED_OWN;
        if (asked == ASKED_OWN || !merely_bound(fd))
            return 0;
        e->ip = asked == ASKED_ANY ? INADDR_ANY : LOOPBACK;
    }
    e->port = shared_guest_port(e->port);
    return 1;
}

void shared_name6(int local, int fd, void *sa, socklen_t len) {
    struct sockaddr_in6 *a = sa;
    if (!local || !shared_own() || len < V6_LEN || a->sin6_family != AF_INET6 ||
        !IN6_IS_ADDR_LOOPBACK(&a->sin6_addr) || asked_for(fd) != ASKED_ANY)
        return;
    a->sin6_addr.s6_addr[15] = 0;
    a->sin6_port = htons(shared_guest_port(ntohs(a->sin6_port)));
}
