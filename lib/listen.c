/* SPDX-License-Identifier: Apache-2.0 */
/* listen: the kernel's, and then the supervisor is told what listens where. */
#include "addr.h"
#include "hooks.h"
#include "ipc.h"
#include "shared.h"
#include "sys.h"
#include "view.h"

#define LISTEN_PATIENCE (1 * SECOND)

/* A client on a laptop has its underlay address on loopback. */
static int is_own_underlay(uint32_t ip) {
    struct table_info info;
    return view_info(&info) && ip == info.header.own_underlay;
}

/* What the supervisor can bring connections to: 0 for anything else. */
static int describe(int fd, struct boxer_request *q) {
    union address a;
    socklen_t len = sizeof a;
    struct endpoint e;
    if (!is_tcp(fd) || sys_getsockname(fd, &a, &len) < 0)
        return 0;
    if (endpoint_of(&a, len, &e)) {
        q->ip = e.ip;
        q->port = e.port;
    } else if (a.any.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&a.v6.sin6_addr)) {
        q->ip = INADDR_ANY;
        q->port = ntohs(a.v6.sin6_port);
    } else {
        return 0; /* ::1, or an IPv6 address of its own */
    }
    if (a.any.sa_family == AF_INET6)
        q->flags |= BOXER_FLAG_V6;
    if (a.any.sa_family == AF_INET6 && socket_option(fd, IPPROTO_IPV6, IPV6_V6ONLY) > 0)
        q->flags |= BOXER_FLAG_V6ONLY;
    return (!is_loopback(q->ip) || is_own_underlay(q->ip)) && !shared_is_private(fd);
}

/* A listener that could not be announced still serves native peers. */
static void announce(int fd, int backlog, const struct identity *id) {
    struct boxer_request q = {.op = BOXER_OP_LISTEN};
    struct boxer_response r;
    if (!describe(fd, &q))
        return;
    q.cookie = socket_cookie(fd);
    q.backlog = backlog < 0 ? 0 : (uint32_t)backlog;
    ipc_once(id, &q, &r, NULL, LISTEN_PATIENCE);
}

long hook_listen(int fd, int backlog) {
    const struct environment *e = environment();
    long result;
    shared_before_listen(fd);
    result = sys_listen(fd, backlog);
    if (result == 0 && e)
        announce(fd, backlog, &e->identity);
    return result;
}
