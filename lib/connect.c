/* SPDX-License-Identifier: Apache-2.0 */
/*
 * connect: native peers by translating the address, all others on the way the
 * supervisor names. The guest's own socket makes the connection in every case.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>

#include "addr.h"
#include "hooks.h"
#include "ipc.h"
#include "libc.h"
#include "mem.h"
#include "shared.h"
#include "sys.h"
#include "view.h"

#define CONNECT_PATIENCE (10 * SECOND)
#define LOOPBACK 0x7f000001u
#define REFUSING (BOXER_HOLD_NET | 0xfffeu)

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif
#ifndef TCP_FASTOPEN_CONNECT
#define TCP_FASTOPEN_CONNECT 30
#endif
#ifndef TCP_FASTOPEN_NO_COOKIE
#define TCP_FASTOPEN_NO_COOKIE 34
#endif

enum { STATE_CLOSE = 7 }; /* TCP_CLOSE of the kernel's enum */
enum { FRESH = 1 };       /* no result of a connect */

/* One connect() to an overlay address. */
struct attempt {
    int fd;
    int nonblock;
    int hurried;  /* MSG_DONTWAIT on a socket that blocks */
    int stranded; /* an overlay address, and no table */
    union address to;
    socklen_t len;
    struct endpoint end;
    const struct identity *id;
    struct ipc ipc;
};

static int tcp_state(int fd) {
    uint8_t state = 0;
    socklen_t len = sizeof state;
    long r = sys_getsockopt(fd, IPPROTO_TCP, TCP_INFO, &state, &len);
    return r < 0 ? (int)r : state;
}

/* connect() knows no MSG_DONTWAIT; the shortest wait there is comes close. */
static long connect_hurried(struct attempt *t) {
    struct timeval shortest = {0, 1}, old;
    socklen_t len = sizeof old;
    long result, error = sys_getsockopt(t->fd, SOL_SOCKET, SO_SNDTIMEO, &old, &len);
    if (error < 0)
        return error;
    sys_setsockopt(t->fd, SOL_SOCKET, SO_SNDTIMEO, &shortest, sizeof shortest);
    result = kernel_connect(t->fd, &t->to, t->len);
    sys_setsockopt(t->fd, SOL_SOCKET, SO_SNDTIMEO, &old, sizeof old);
    return result;
}

static long connect_to(struct attempt *t, uint32_t ip, uint16_t port) {
    address_set_ip(&t->to, ip);
    address_set_port(&t->to, port);
    return t->hurried ? connect_hurried(t) : kernel_connect(t->fd, &t->to, t->len);
}

/* Where the socket is bound, also to [::] and a port. port is 0 when it is not. */
static void bound_at(int fd, struct endpoint *e) {
    union address a;
    socklen_t len = sizeof a;
    *e = (struct endpoint){0, 0, 0};
    if (sys_getsockname(fd, &a, &len) < 0 || endpoint_of(&a, len, e))
        return;
    *e = (struct endpoint){0, ntohs(a.v6.sin6_port), AF_INET6};
}

/*
 * A node on a loopback address (a client on a laptop) is known to its peers by
 * that address, which the kernel would not choose by itself.
 */
static void use_own_loopback(int fd, uint32_t own, uint16_t family) {
    struct endpoint wanted = {own, 0, family}, bound;
    union address a;
    socklen_t len = address_make(&a, &wanted);
    int yes = 1;
    bound_at(fd, &bound);
    if (bound.ip || bound.port)
        return;
    sys_setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    sys_bind(fd, &a, len);
}

static void prepare_native(struct attempt *t, const struct table_info *info) {
    uint32_t own = info->header.own_underlay;
    if (is_loopback(own) && tcp_state(t->fd) == STATE_CLOSE)
        use_own_loopback(t->fd, own, t->end.family);
}

/*
 * Takes the local port that the supervisor has made known outside its NAT, and
 * which a socket of its own keeps there: both need SO_REUSEADDR, this one for the
 * bind only. A socket that the guest has bound stays where it is.
 */
static int bind_first(struct attempt *t, uint16_t port) {
    struct endpoint wanted = {shared_own(), port, t->end.family}, bound;
    union address a;
    socklen_t len = address_make(&a, &wanted);
    int yes = 1, was = socket_option(t->fd, SOL_SOCKET, SO_REUSEADDR);
    long error;
    bound_at(t->fd, &bound);
    if (bound.ip || bound.port)
        return 0;
    sys_setsockopt(t->fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    error = sys_bind(t->fd, &a, len);
    sys_setsockopt(t->fd, SOL_SOCKET, SO_REUSEADDR, &was, sizeof was);
    return !error;
}

/*
 * The preface goes out with the SYN, so it is first in the stream whatever the
 * guest writes. Exactly its length means that it is queued; anything else means
 * that it is not, and then the socket may not go on to this peer.
 */
static int queue_preface(struct attempt *t, const struct boxer_response *r) {
    int yes = 1, no = 0;
    long n;
    address_set_ip(&t->to, r->ip);
    address_set_port(&t->to, r->port);
    if (r->local_port && !bind_first(t, r->local_port))
        return 0;
    if (shared_own())
        use_own_loopback(t->fd, shared_own(), t->end.family);
    if (!r->preface_len ||
        sys_setsockopt(t->fd, IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, &yes, sizeof yes) < 0)
        return 0;
    n = sys_sendto(t->fd, r->preface, r->preface_len, MSG_FASTOPEN | MSG_DONTWAIT | MSG_NOSIGNAL,
                   &t->to, t->len);
    if (n == r->preface_len)
        return 1;
    if (tcp_state(t->fd) != STATE_CLOSE) {
        /* On its way without a preface (fast open switched off by a black hole): call it back. */
        struct sockaddr none = {.sa_family = AF_UNSPEC};
        sys_connect(t->fd, &none, sizeof none);
    }
    sys_setsockopt(t->fd, IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, &no, sizeof no);
    return 0;
}

/* Waits as a native connect() does, in the kernel. */
static long await_direct(struct attempt *t) {
    long result;
    if (t->nonblock)
        return -EINPROGRESS;
    result = kernel_connect(t->fd, &t->to, t->len);
    return result == -EALREADY ? -EINPROGRESS : result; /* SO_SNDTIMEO ran out */
}

/*
 * Gives the socket a port to be found at, on loopback unless it has an address.
 * What getsockname shows may be a real binding (then bind says EINVAL) or what
 * is left of a connection that was called back, so bind is tried in any case.
 */
static long bind_for_hold(struct attempt *t, struct endpoint *local) {
    struct endpoint wanted = {HELD_AT, 0, t->end.family};
    union address a;
    socklen_t len;
    int no = 0;
    long error;
    bound_at(t->fd, local);
    if (local->ip)
        wanted.ip = local->ip;
    len = address_make(&a, &wanted);
    sys_setsockopt(t->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &no, sizeof no);
    error = sys_bind(t->fd, &a, len);
    if (error == -EINVAL && local->port)
        error = 0;
    bound_at(t->fd, local);
    if (local->ip == 0)
        local->ip = LOOPBACK; /* what the kernel takes towards the hold address */
    return error;
}

/* Lets the kernel give up sooner; what the guest chose itself and is less stays. */
static void limit_syns(int fd, int syns) {
    int chosen = socket_option(fd, IPPROTO_TCP, TCP_SYNCNT);
    if (syns && (chosen < 0 || chosen > syns))
        sys_setsockopt(fd, IPPROTO_TCP, TCP_SYNCNT, &syns, sizeof syns);
}

/*
 * The socket waits in SYN_SENT at the hold address until the supervisor, which
 * must know its port for that, connects to it from there.
 */
static long connect_hold(struct attempt *t, const struct boxer_response *r) {
    struct boxer_request q = {.op = BOXER_OP_HELD};
    struct endpoint local;
    int no = 0;
    long error = bind_for_hold(t, &local);
    /* It would let connect() return before there is a connection, and no SYN wait. */
    if (socket_option(t->fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT) > 0)
        sys_setsockopt(t->fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &no, sizeof no);
    limit_syns(t->fd, r->syns);
    q.cookie = socket_cookie(t->fd);
    q.ip = local.ip;
    q.port = local.port;
    if (!error && ipc_send(&t->ipc, &q) != 0)
        error = -ENETDOWN;
    ipc_close(&t->ipc);
    return error ? error : connect_to(t, r->ip, r->port);
}

/* One question and its answer; the conversation stays open for what may follow. */
static int ask(struct attempt *t, struct boxer_request *q, struct boxer_response *r) {
    int error = ipc_open(&t->ipc, t->id, CONNECT_PATIENCE);
    if (error)
        return error == -EMFILE || error == -ENFILE ? error : -ENETDOWN;
    return ipc_ask(&t->ipc, q, r, NULL) ? -ENETDOWN : -r->error;
}

static long follow_plan(struct attempt *t, struct boxer_request *q, struct boxer_response *r) {
    if (r->action == BOXER_ACTION_DIRECT) {
        int error;
        ipc_close(&t->ipc);
        if (queue_preface(t, r))
            return await_direct(t);
        q->flags |= BOXER_FLAG_FALLBACK;
        error = ask(t, q, r);
        if (error)
            return error;
    }
    if (r->action == BOXER_ACTION_HOLD)
        return connect_hold(t, r);
    if (r->action == BOXER_ACTION_NATIVE) {
        ipc_close(&t->ipc);
        return connect_to(t, r->ip, r->port);
    }
    return -EPROTO;
}

/*
 * A connect that does not wait hears of a refusal later, from poll and SO_ERROR.
 * Nobody can listen on port 0, so there the kernel is refused on the spot.
 */
static long refused_later(struct attempt *t) {
    return connect_to(t, REFUSING, 0);
}

static long connect_asking(struct attempt *t) {
    struct boxer_request q = {.op = BOXER_OP_CONNECT, .ip = t->end.ip, .port = t->end.port};
    struct boxer_response r;
    struct endpoint bound;
    long result;
    bound_at(t->fd, &bound);
    if (bound.ip || bound.port)
        q.flags |= BOXER_FLAG_BOUND;
    if (t->end.family == AF_INET6)
        q.flags |= BOXER_FLAG_V6;
    if (t->nonblock)
        q.flags |= BOXER_FLAG_NONBLOCK;
    q.cookie = socket_cookie(t->fd);
    result = ask(t, &q, &r);
    if (!result)
        result = follow_plan(t, &q, &r);
    ipc_close(&t->ipc);
    if (result == -EPIPE)
        result = -ECONNRESET; /* made, ended and reset before this process woke up */
    return result == -ECONNREFUSED && t->nonblock ? refused_later(t) : result;
}

/*
 * A socket that is listening, connecting, connected, shut down or has failed to
 * connect answers the kernel's connect whatever the address; all others say that
 * they do not know this family, and nothing happens.
 */
static long if_not_fresh(struct attempt *t) {
    union address foreign = {.any.sa_family = AF_UNIX};
    long result = kernel_connect(t->fd, &foreign, V6_LEN);
    return result == -EAFNOSUPPORT ? FRESH : result;
}

/*
 * What is not a socket for this address's family gets the kernel's own answer:
 * EAFNOSUPPORT, or ENETUNREACH for an IPv6-only one.
 */
static int family_fits(const struct attempt *t) {
    if (socket_option(t->fd, SOL_SOCKET, SO_DOMAIN) != t->end.family)
        return 0;
    return t->end.family == AF_INET || socket_option(t->fd, IPPROTO_IPV6, IPV6_V6ONLY) == 0;
}

static int fresh(const struct attempt *t) {
    return tcp_state(t->fd) == STATE_CLOSE && family_fits(t);
}

static int is_native(int found, const struct boxer_member *m) {
    return found == TABLE_HIT && m->transport == BOXER_TRANSPORT_NATIVE && m->underlay;
}

/*
 * Connections of the node to itself that only the kernel can make: of a socket
 * to its own port, and from 127.0.0.1.
 */
static int kernel_only(const struct attempt *t, const struct table_info *info) {
    struct endpoint bound;
    if (t->end.ip != info->header.own_overlay)
        return 0;
    bound_at(t->fd, &bound);
    return shared_guest_port(bound.port) == t->end.port ||
           (is_loopback(bound.ip) && bound.ip != info->header.own_underlay && bound.ip != HELD_AT);
}

/* A fresh socket, and a peer that the kernel cannot reach by itself. */
static long connect_elsewhere(struct attempt *t, const struct table_info *info, int found,
                              const struct boxer_member *m) {
    if (found == TABLE_UNUSABLE)
        return -ENETDOWN;
    if (found == TABLE_MISS || m->transport == BOXER_TRANSPORT_NONE)
        return -EHOSTUNREACH;
    if (kernel_only(t, info))
        return connect_to(t, info->header.own_underlay, shared_kernel_port(t->end.port));
    t->nonblock = t->hurried || (sys_fcntl(t->fd, F_GETFL, 0) & O_NONBLOCK) != 0;
    return connect_asking(t);
}

/*
 * Without a table (the supervisor is gone, and this process is new) an overlay
 * address must not go out to wherever the machine's routes lead.
 */
static int stranded(int fd, const void *sa, socklen_t len) {
    const struct environment *e = environment();
    struct attempt t = {.fd = fd};
    return e && e->cidr_mask && address_from_guest(&t.to, sa, len) &&
           endpoint_of(&t.to, len, &t.end) && (t.end.ip & e->cidr_mask) == e->cidr_ip &&
           is_tcp(fd) && fresh(&t);
}

/* The table, if this address is one of the overlay's and fd a TCP socket. */
static const void *begin(struct attempt *t, int fd, const void *sa, socklen_t len,
                         struct table_info *info) {
    const void *table = view_info(info);
    t->stranded = !table && stranded(fd, sa, len);
    if (!table || !address_from_guest(&t->to, sa, len) || !endpoint_of(&t->to, len, &t->end) ||
        !in_overlay(info, t->end.ip) || !is_tcp(fd))
        return NULL;
    t->fd = fd;
    t->len = len;
    t->hurried = 0;
    t->id = &environment()->identity;
    t->ipc.fd = -1;
    return table;
}

long hook_connect(int fd, const void *sa, socklen_t len) {
    struct attempt t;
    struct boxer_member m;
    struct table_info info;
    const void *table = begin(&t, fd, sa, len, &info);
    long result;
    int found = table ? table_member(table, &info, t.end.ip, &m) : TABLE_MISS;
    if (!table)
        return t.stranded ? -ENETDOWN : shared_connect(fd, sa, len);
    if (is_native(found, &m)) {
        prepare_native(&t, &info);
        return connect_to(&t, m.underlay, shared_kernel_port(t.end.port));
    }
    result = if_not_fresh(&t);
    if (result != FRESH)
        return result;
    if (!family_fits(&t))
        return kernel_connect(fd, &t.to, len);
    return connect_elsewhere(&t, &info, found, &m);
}

long connect_to_send(int fd, const void *sa, socklen_t len, int flags, union address *to) {
    struct attempt t;
    struct boxer_member m;
    struct table_info info;
    const void *table = begin(&t, fd, sa, len, &info);
    int found = table ? table_member(table, &info, t.end.ip, &m) : TABLE_MISS;
    if (!table && t.stranded)
        return -ENETDOWN;
    if (!table)
        return shared_translate(fd, sa, len, to) ? SEND_TRANSLATED : SEND_AS_IS;
    if (is_native(found, &m)) {
        prepare_native(&t, &info);
        address_set_ip(&t.to, m.underlay);
        address_set_port(&t.to, shared_kernel_port(t.end.port));
        *to = t.to;
        return SEND_TRANSLATED;
    }
    if (!fresh(&t))
        return SEND_AS_IS;
    t.hurried = (flags & MSG_DONTWAIT) && !(sys_fcntl(fd, F_GETFL, 0) & O_NONBLOCK);
    return connect_elsewhere(&t, &info, found, &m); /* 0 is SEND_CONNECTED */
}
