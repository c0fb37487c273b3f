/* SPDX-License-Identifier: Apache-2.0 */
/* getsockname and getpeername: what the kernel says, in overlay terms. */
#include <errno.h>
#include <linux/tcp.h>

#include "addr.h"
#include "hooks.h"
#include "ipc.h"
#include "mem.h"
#include "shared.h"
#include "sys.h"
#include "view.h"

#ifndef TCP_FASTOPEN_NO_COOKIE
#define TCP_FASTOPEN_NO_COOKIE 34
#endif

#define ADDRESS_PATIENCE (1 * SECOND)

enum side { LOCAL, PEER };

static long kernel_name(enum side side, int fd, void *sa, void *len) {
    return side == LOCAL ? sys_getsockname(fd, sa, len) : sys_getpeername(fd, sa, len);
}

static int endpoint_at(enum side side, int fd, struct endpoint *e) {
    union address a;
    socklen_t len = sizeof a;
    return kernel_name(side, fd, &a, &len) == 0 && endpoint_of(&a, len, e);
}

/*
 * Ends that only the supervisor made, or that its one port serves for all
 * others: what the guest should see is known to the supervisor alone.
 */
static int made_by_supervisor(const struct table_info *info, const struct endpoint *e) {
    uint32_t net = e->ip & 0xffff0000u;
    return e->port == info->header.overlay_port || net == BOXER_SIGNAL_NET || net == BOXER_HOLD_NET;
}

/*
 * A connection from elsewhere than the node's own address may be one that was
 * handed over: a published port's, or a laptop's, whose relay has any port.
 */
static int needs_asking(const struct table_info *info, enum side side, int fd,
                        const struct endpoint *e) {
    struct endpoint other;
    const struct endpoint *local = side == LOCAL ? e : &other;
    int connected = endpoint_at(side == LOCAL ? PEER : LOCAL, fd, &other);
    if (made_by_supervisor(info, e) || (connected && made_by_supervisor(info, &other)))
        return 1;
    if (connected && socket_option(fd, IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE) > 0)
        return 1; /* made with a preface, to a port that some NAT has chosen */
    if (!connected && segments_received(fd))
        return 1; /* it was one, and has been reset */
    return (side == LOCAL || connected) && local->ip && local->ip != info->header.own_underlay;
}

static int ask(enum side side, int fd, struct endpoint *e) {
    struct boxer_request q = {.op = BOXER_OP_ADDRESS};
    struct boxer_response r;
    uint16_t port;
    q.cookie = socket_cookie(fd);
    if (ipc_once(&environment()->identity, &q, &r, NULL, ADDRESS_PATIENCE) != 0 || r.error)
        return 0;
    if (side == LOCAL ? !r.local_ip : !r.peer_ip)
        return 0;
    e->ip = side == LOCAL ? r.local_ip : r.peer_ip;
    port = side == LOCAL ? r.local_port : r.peer_port;
    if (port) /* else the kernel's */
        e->port = port;
    if (r.family == AF_INET || r.family == AF_INET6)
        e->family = r.family;
    return 1;
}

static int translate(enum side side, const void *table, struct table_info *info,
                     struct endpoint *e) {
    if (side == LOCAL && e->ip && e->ip == info->header.own_underlay) {
        e->ip = info->header.own_overlay;
        e->port = shared_guest_port(e->port);
        return 1;
    }
    if (table_native(table, info, e->ip, &e->ip) != TABLE_HIT)
        return 0;
    e->port = shared_guest_port(e->port);
    return 1;
}

/* A socket that nobody but the monitor has bound, after a connect that failed. */
static int unbound(enum side side, int fd, const struct endpoint *e) {
    struct endpoint peer;
    return side == LOCAL && e->ip == HELD_AT && !endpoint_at(PEER, fd, &peer) &&
           !segments_received(fd);
}

/* 1 when the guest should see e instead of what the kernel gave. */
static int overlay_name(enum side side, int fd, struct endpoint *e) {
    struct table_info info;
    const void *table = view_info(&info);
    if (!table || !endpoint_at(side, fd, e) || !is_tcp(fd))
        return 0;
    if (shared_name(side == LOCAL, fd, e))
        return 1;
    if (unbound(side, fd, e)) {
        e->ip = INADDR_ANY;
        return 1;
    }
    if (needs_asking(&info, side, fd, e) && ask(side, fd, e))
        return 1;
    return translate(side, table, &info, e);
}

/*
 * The kernel writes to the guest first: it knows best about bad pointers, and
 * what it has written can be written again. Where it wrote more than the guest
 * should see (an IPv6 name for an IPv4 one) that is put back.
 */
static long hook_name(enum side side, int fd, void *sa, socklen_t *len) {
    struct endpoint e;
    union address a, before;
    socklen_t room, n, kept;
    long result;
    if (!environment() || !len || !readable(len, sizeof *len))
        return kernel_name(side, fd, sa, len);
    room = *len;
    kept = room < V6_LEN ? room : V6_LEN;
    if (kept > V4_LEN && readable(sa, kept))
        memcpy(&before, sa, kept);
    else
        kept = 0;
    result = kernel_name(side, fd, sa, len);
    if (result == 0 && room >= V6_LEN)
        shared_name6(side == LOCAL, fd, sa, *len);
    if (result < 0 || !overlay_name(side, fd, &e))
        return result;
    n = address_make(&a, &e);
    if (e.family == AF_INET6 && e.ip == INADDR_ANY)
        a.v6.sin6_addr.s6_addr32[2] = 0; /* ::, not mapped */
    if (kept > n)
        memcpy((char *)sa + n, (char *)&before + n, kept - n);
    *len = n;
    if (room > n)
        room = n;
    if (room && !readable(sa, room))
        return -EFAULT;
    memcpy(sa, &a, room);
    return 0;
}

long hook_getsockname(int fd, void *sa, socklen_t *len) {
    return hook_name(LOCAL, fd, sa, len);
}

long hook_getpeername(int fd, void *sa, socklen_t *len) {
    return hook_name(PEER, fd, sa, len);
}
