/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node without a network namespace of its own shares the machine's loopback
 * with others: BOXER_LOOPBACK is its address there. To its guests that address
 * is all there is of the machine: what they bind to a wildcard or to 127.0.0.1
 * is bound there, and 127.0.0.1 leads there. Ports below 1024, which ordinary
 * users may not bind, are at the top of the range, on every such node alike.
 *
 *   own     127.b.x.y      the node's underlay address
 *   alias   127.(b+1).x.y  what its connections to its own 127.0.0.1 come from
 *
 * On any other node these functions change nothing. Go side:
 * runtime/socket/ports.go.
 */
#ifndef BOXER_SHARED_H
#define BOXER_SHARED_H

#include "addr.h"
#include "env.h"

#define LOW_PORTS_AT 64512u /* port 80 is at 64592 */
#define ALIAS_OFFSET 0x00010000u

/* The node's own address, or 0: it shares its loopback with nobody. */
static inline uint32_t shared_own(void) {
    const struct environment *e = environment();
    return e ? e->loopback : 0;
}

/* Where a guest's port is to the kernel, and back. */
uint16_t shared_kernel_port(uint16_t port);
uint16_t shared_guest_port(uint16_t port);

/* bind() with these rules. */
long shared_bind(int fd, const void *sa, socklen_t len);

/* Before listen(): a socket that is not bound gets a port, and not everywhere. */
void shared_before_listen(int fd);

/* Whether the guest bound this listener to 127.0.0.1: no peer's business. */
int shared_is_private(int fd);

/* Where a connect to 127.0.0.1 goes: 1 and the address in *to, the socket bound. */
int shared_translate(int fd, const void *sa, socklen_t len, union address *to);

/* connect() of the kernel to what is no overlay address. */
long shared_connect(int fd, const void *sa, socklen_t len);

/* 1: the guest should see e, one end of fd, as it is now. */
int shared_name(int local, int fd, struct endpoint *e);

/* The same for a name that is no IPv4 one, as the guest has just got it. */
void shared_name6(int local, int fd, void *sa, socklen_t len);

/* 1: the peer of an accepted connection is the node itself, by 127.0.0.1. */
int shared_peer(struct endpoint *peer);

#endif
