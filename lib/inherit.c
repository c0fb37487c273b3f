/* SPDX-License-Identifier: Apache-2.0 */
/* Copying the options a guest may have set on its listener. */
#include "inherit.h"

#include <linux/tcp.h>
#include <netinet/in.h>

#include "addr.h"
#include "mem.h"
#include "sys.h"

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif

enum { VALUE_MAX = 16, SNDBUF_LOCKED = 1, RCVBUF_LOCKED = 2 };

static void copy_option(int from, int to, int level, int name) {
    char wanted[VALUE_MAX], present[VALUE_MAX];
    socklen_t n = sizeof wanted, m = sizeof present;
    if (sys_getsockopt(from, level, name, wanted, &n) < 0)
        return;
    if (sys_getsockopt(to, level, name, present, &m) == 0 && n == m && !memcmp(wanted, present, n))
        return;
    sys_setsockopt(to, level, name, wanted, n);
}

/* Where the guest wants none, the supervisor's keep-alive through a NAT stays. */
static void copy_keepalive(int from, int to) {
    if (socket_option(from, SOL_SOCKET, SO_KEEPALIVE) <= 0)
        return;
    copy_option(from, to, SOL_SOCKET, SO_KEEPALIVE);
    copy_option(from, to, IPPROTO_TCP, TCP_KEEPIDLE);
    copy_option(from, to, IPPROTO_TCP, TCP_KEEPINTVL);
    copy_option(from, to, IPPROTO_TCP, TCP_KEEPCNT);
}

/* The kernel reports twice what was set. */
static void copy_buffer(int from, int to, int name) {
    int size = socket_option(from, SOL_SOCKET, name) / 2;
    if (size > 0)
        sys_setsockopt(to, SOL_SOCKET, name, &size, sizeof size);
}

/* Setting a size ends the kernel's own tuning, so only one the guest has set. */
static void copy_buffers(int from, int to) {
    int locked = socket_option(from, SOL_SOCKET, SO_BUF_LOCK);
    if (locked <= 0) /* nothing set, or a kernel before 5.14, which cannot tell */
        return;
    if (locked & SNDBUF_LOCKED)
        copy_buffer(from, to, SO_SNDBUF);
    if (locked & RCVBUF_LOCKED)
        copy_buffer(from, to, SO_RCVBUF);
}

void inherit_options(int from, int to) {
    static const struct {
        short level, name;
    } plain[] = {
        {IPPROTO_TCP, TCP_NODELAY},
        {IPPROTO_TCP, TCP_CONGESTION},
        {IPPROTO_TCP, TCP_USER_TIMEOUT},
        {IPPROTO_TCP, TCP_NOTSENT_LOWAT},
        {IPPROTO_TCP, TCP_LINGER2},
        {IPPROTO_TCP, TCP_SYNCNT},
        {SOL_SOCKET, SO_REUSEADDR},
        {SOL_SOCKET, SO_REUSEPORT},
        {SOL_SOCKET, SO_LINGER},
        {SOL_SOCKET, SO_RCVTIMEO},
        {SOL_SOCKET, SO_SNDTIMEO},
        {SOL_SOCKET, SO_RCVLOWAT},
        {SOL_SOCKET, SO_OOBINLINE},
        {IPPROTO_IP, IP_TTL},
        {IPPROTO_IP, IP_MTU_DISCOVER},
        {IPPROTO_IP, IP_TOS},
        {IPPROTO_IPV6, IPV6_TCLASS},
        {SOL_SOCKET, SO_PRIORITY}, /* last: the kernel derives one from IP_TOS */
    };
    for (unsigned i = 0; i < sizeof plain / sizeof plain[0]; i++)
        copy_option(from, to, plain[i].level, plain[i].name);
    copy_keepalive(from, to);
    copy_buffers(from, to);
}
