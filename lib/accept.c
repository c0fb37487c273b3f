/* SPDX-License-Identifier: Apache-2.0 */
/*
 * accept: native peers get their overlay address; a signal connection (its
 * peer is in 127.66/16) is exchanged for the socket that it stands for.
 */
#include <errno.h>
#include <fcntl.h>

#include "addr.h"
#include "hooks.h"
#include "inherit.h"
#include "ipc.h"
#include "libc.h"
#include "mem.h"
#include "shared.h"
#include "sys.h"
#include "view.h"

#define ACCEPT_PATIENCE (5 * SECOND)

/* Where the guest wants the peer's address, if it does. */
struct output {
    void *sa;
    socklen_t *len;
    socklen_t room; /* *len before the kernel overwrote it */
};

static void put_address(const struct output *out, const union address *a, socklen_t len) {
    memcpy(out->sa, a, out->room < len ? out->room : len);
    *out->len = len;
}

/* Only what the kernel has just filled is written, so nothing can fault. */
static void put_peer(const struct output *out, const struct endpoint *e) {
    union address a;
    socklen_t len = address_make(&a, e);
    if (out->sa)
        put_address(out, &a, len);
}

/*
 * The kernel's accept, and who the peer is: only this call tells of one that has
 * been reset meanwhile. The kernel writes to the guest first, as it knows best
 * about bad pointers; where that is too little for us, the room is tried out by
 * another call that writes there.
 */
static long accept_peer(int fd, const struct output *out, int flags, union address *a,
                        socklen_t *len) {
    long accepted;
    *len = sizeof *a;
    if (out->sa && out->room >= V6_LEN) {
        accepted = kernel_accept4(fd, out->sa, out->len, flags);
        if (accepted >= 0) {
            *len = *out->len < V6_LEN ? *out->len : V6_LEN;
            memcpy(a, out->sa, *len);
        }
        return accepted;
    }
    accepted = kernel_accept4(fd, a, len, flags);
    if (accepted >= 0 && out->sa) {
        if (sys_getsockname((int)accepted, out->sa, out->len) == -EFAULT) {
            sys_close((int)accepted);
            return -EFAULT;
        }
        put_address(out, a, *len);
    }
    return accepted;
}

static int is_signal(uint32_t ip) {
    return (ip & 0xffff0000u) == BOXER_SIGNAL_NET;
}

/*
 * Puts the real socket where the signal connection was. That one ends with a
 * reset, whichever end closes first: in TIME_WAIT it would keep the guest's port
 * from a listener without SO_REUSEADDR.
 */
static long take_over(int signal, int real, int flags) {
    struct linger reset = {1, 0};
    long status = sys_fcntl(real, F_GETFL, 0);
    long wanted = flags & SOCK_NONBLOCK ? status | O_NONBLOCK : status & ~(long)O_NONBLOCK;
    if (status < 0)
        return status;
    if (wanted != status)
        sys_fcntl(real, F_SETFL, wanted);
    inherit_options(signal, real);
    sys_setsockopt(signal, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    return sys_dup3(real, signal, flags & SOCK_CLOEXEC ? O_CLOEXEC : 0);
}

/* Where the conversation ends without an ACK the supervisor keeps the socket. */
static long exchange(struct ipc *c, int listener, int signal, int flags, struct endpoint *peer) {
    struct boxer_request q = {.op = BOXER_OP_ACCEPT, .ip = peer->ip, .port = peer->port};
    struct boxer_response r;
    int real;
    long error;
    q.cookie = socket_cookie(listener);
    if (peer->family == AF_INET6)
        q.flags |= BOXER_FLAG_V6;
    error = ipc_ask(c, &q, &r, &real);
    if (!error)
        error = r.error ? -r.error : (real < 0 ? -ENOENT : 0);
    if (!error)
        error = take_over(signal, real, flags);
    if (real >= 0)
        sys_close(real);
    q.op = error < 0 ? BOXER_OP_NAK : BOXER_OP_ACK;
    if (error >= 0 || error == -EMFILE)
        ipc_send(c, &q);
    if (error >= 0) {
        peer->ip = r.peer_ip;
        peer->port = r.peer_port;
    }
    return error < 0 ? error : 0;
}

/*
 * No descriptor is left to ask the supervisor with. It is told on the signal
 * connection, lest it takes this for a program that knows no signals.
 */
static void decline(int signal) {
    sys_sendto(signal, BOXER_SIGNAL_DECLINED, strlen(BOXER_SIGNAL_DECLINED),
               MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
}

/* 0: fd is the real socket now. -EMFILE: no room. Else the signal was stale. */
static long fetch(const struct identity *id, int listener, int fd, int flags,
                  struct endpoint *peer) {
    struct ipc c;
    long error = ipc_open(&c, id, ACCEPT_PATIENCE);
    if (error == -EMFILE || error == -ENFILE)
        decline(fd);
    if (error)
        return error;
    error = exchange(&c, listener, fd, flags, peer);
    ipc_close(&c);
    return error;
}

static void translate_native(const struct endpoint *peer, const struct output *out) {
    struct table_info info;
    struct endpoint shown = *peer;
    const void *table = out->sa ? view() : NULL;
    if (table && table_native(table, &info, peer->ip, &shown.ip) == TABLE_HIT) {
        shown.port = shared_guest_port(shown.port);
        put_peer(out, &shown);
    } else if (out->sa && shared_peer(&shown)) {
        put_peer(out, &shown);
    }
}

/*
 * "Try again" is only ever said by the kernel: an edge-triggered guest that
 * heard it from us would wait for an edge that does not come. So a stale signal
 * leads back to the kernel, which blocks, or has no more, as it does natively.
 */
static long accept_signalled(const struct identity *id, int fd, const struct output *out,
                             int flags) {
    for (;;) {
        struct endpoint peer;
        union address a;
        socklen_t len;
        long error, accepted = accept_peer(fd, out, flags, &a, &len);
        if (accepted < 0 || !endpoint_of(&a, len, &peer))
            return accepted;
        if (!is_signal(peer.ip)) {
            translate_native(&peer, out);
            return accepted;
        }
        error = fetch(id, fd, (int)accepted, flags, &peer);
        if (!error) {
            put_peer(out, &peer);
            return accepted;
        }
        sys_close((int)accepted);
        if (error == -EMFILE || error == -ENFILE)
            return error;
        if (out->sa)
            *out->len = out->room;
    }
}

long hook_accept4(int fd, void *sa, socklen_t *len, int flags) {
    const struct environment *e = environment();
    struct output out = {sa, len, 0};
    if (!e)
        return kernel_accept4(fd, sa, len, flags);
    if (sa) {
        if (!len || !readable(len, sizeof *len))
            return kernel_accept4(fd, sa, len, flags); /* EFAULT, from who knows best */
        out.room = *len;
    }
    return accept_signalled(&e->identity, fd, &out, flags);
}
