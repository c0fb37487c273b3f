/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames between a process monitor and its supervisor: one SOCK_SEQPACKET
 * packet each, over an abstract unix socket, one connection per request.
 * All integers little-endian, IPv4 addresses as host-order integers.
 *
 * Environment of every guest process:
 *   BOXER_LIB=/path/of/libboxer.so
 *   BOXER_IPC=<abstract name>/<monitor token, 32 hex>/<supervisor token, 32 hex>
 *   BOXER_CIDR=100.80.0.0/16, to know overlay addresses by without a table
 *   BOXER_LOOPBACK=127.80.0.5/32, where the node shares its machine's loopback
 *   with others: its own address there (shared.h)
 * The monitor proves its token in every request, the supervisor its own in
 * every response.
 *
 *   TABLE    -> fd of the node table (memfd, sealed)
 *   LISTEN   after the kernel's listen() succeeded; best effort
 *   CONNECT  -> NATIVE | DIRECT + preface | HOLD, or an errno. When a DIRECT
 *            preface could not be queued the monitor asks once more, with
 *            FALLBACK, and gets HOLD or an errno. With DIRECT a local_port
 *            that is not 0 is bound before, on any address; a socket that is
 *            bound already, or cannot be, falls back, too. With HOLD and syns
 *            the kernel sends the SYN again so many times and then gives up
 *            (ETIMEDOUT): the far end may never come.
 *   HELD     on the CONNECT connection, no response: the guest's socket is
 *            bound to ip:port and about to connect to the hold address
 *   ACCEPT   a signal connection from ip:port was accepted -> fd of the real
 *            socket with both addresses, or ENOENT (stale: accept again).
 *            Then ACK (taken) or NAK (not taken: keep it queued) on the same
 *            connection, no response. Closing without ACK means NAK.
 *   ADDRESS  what the guest should see for the socket with this cookie
 *
 * Go side: runtime/ipc. Golden bytes: lib/test/golden/{request,response}.bin.
 */
#ifndef BOXER_WIRE_H
#define BOXER_WIRE_H

#include <stdint.h>

#define BOXER_REQUEST_MAGIC 0x51525842u  /* "BXRQ" */
#define BOXER_RESPONSE_MAGIC 0x53525842u /* "BXRS" */
#define BOXER_WIRE_VERSION 1u
#define BOXER_TOKEN_LEN 16u
#define BOXER_PREFACE_MAX 128u

/* Reserved loopback addresses (host order, /16). */
#define BOXER_SIGNAL_NET 0x7f420000u /* 127.66.0.0/16: signal connections */
#define BOXER_HOLD_NET 0x7f430000u   /* 127.67.0.0/16: hold addresses */

/*
 * What a monitor without a free descriptor writes to a signal connection before
 * it closes it: the connection behind it stays queued and is signalled again.
 */
#define BOXER_SIGNAL_DECLINED "BXDECLND"

enum boxer_op {
    BOXER_OP_TABLE = 1,
    BOXER_OP_LISTEN = 2,
    BOXER_OP_CONNECT = 3,
    BOXER_OP_HELD = 4,
    BOXER_OP_ACCEPT = 5,
    BOXER_OP_ACK = 6,
    BOXER_OP_NAK = 7,
    BOXER_OP_ADDRESS = 8,
};

enum boxer_flag {
    BOXER_FLAG_NONBLOCK = 1, /* CONNECT: the guest's socket does not block */
    BOXER_FLAG_V6 = 2,       /* the guest's socket is AF_INET6 */
    BOXER_FLAG_V6ONLY = 4,   /* LISTEN: IPV6_V6ONLY is set */
    BOXER_FLAG_FALLBACK = 8, /* CONNECT: the preface could not be queued */
    BOXER_FLAG_BOUND = 16,   /* CONNECT: the guest's socket has an address or a port */
};

enum boxer_action {
    BOXER_ACTION_NATIVE = 1,
    BOXER_ACTION_DIRECT = 2,
    BOXER_ACTION_HOLD = 3,
};

struct boxer_request {
    uint32_t magic;
    uint16_t version;
    uint16_t op;
    uint8_t token[BOXER_TOKEN_LEN];
    uint64_t cookie; /* SO_COOKIE of the guest's socket */
    uint32_t flags;
    uint32_t ip;
    uint16_t port;
    uint16_t cpu; /* that the guest runs on, counted from 1; 0 unknown: only a hint */
    uint32_t backlog;
    uint32_t pid;
    uint8_t reserved1[44];
};

struct boxer_response {
    uint32_t magic;
    uint16_t version;
    uint16_t op; /* of the request */
    uint8_t token[BOXER_TOKEN_LEN];
    int32_t error; /* errno, or 0 */
    uint32_t action;
    uint32_t ip; /* where to connect, as the kernel sees it */
    uint16_t port;
    uint16_t family; /* what the guest expects: AF_INET, AF_INET6, 0 unknown */
    uint32_t local_ip;
    uint16_t local_port; /* of CONNECT: bound before connecting, unless 0 */
    uint16_t peer_port;
    uint32_t peer_ip;
    uint16_t preface_len;
    uint16_t syns; /* of CONNECT: for TCP_SYNCNT, unless 0 */
    uint8_t preface[BOXER_PREFACE_MAX];
    uint8_t reserved1[72];
};

_Static_assert(sizeof(struct boxer_request) == 96, "request");
_Static_assert(sizeof(struct boxer_response) == 256, "response");

#endif
