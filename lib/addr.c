/* SPDX-License-Identifier: Apache-2.0 */
/* Reading, checking and writing socket addresses. */
#include "addr.h"

#include <errno.h>
#include <linux/tcp.h>

#include "mem.h"
#include "sys.h"

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif

/*
 * rt_sigprocmask copies the set from user memory before it looks at how, so
 * with an impossible how it does nothing but tell EFAULT from EINVAL: the
 * cheapest question there is (some 60 ns), and one that filters allow. Asked
 * for the aligned word around a byte, which lies in the same page.
 */
static int word_readable(uintptr_t p) {
    return boxer_syscall(__NR_rt_sigprocmask, 0x7fff, (long)(p & ~(uintptr_t)7), 0, 8, 0, 0) !=
           -EFAULT;
}

#define PAGE_MASK (~(uintptr_t)4095) /* of the smallest pages there are */

/*
 * n is less than a page: the first and the last byte speak for all. What is in the
 * page of this function's own frame, as most addresses are, needs no question.
 */
int readable(const void *p, size_t n) {
    uintptr_t first = (uintptr_t)p, last = first + n - 1;
    uintptr_t own = (uintptr_t)__builtin_frame_address(0) & PAGE_MASK;
    if ((first & PAGE_MASK) == own && (last & PAGE_MASK) == own)
        return 1;
    if (!word_readable(first))
        return 0;
    return (first & PAGE_MASK) == (last & PAGE_MASK) || word_readable(last);
}

int address_from_guest(union address *a, const void *sa, socklen_t len) {
    if (!sa || len < V4_LEN || len > sizeof *a || !readable(sa, len))
        return 0;
    memset(a, 0, sizeof *a);
    memcpy(a, sa, len);
    return 1;
}

int endpoint_of(const union address *a, socklen_t len, struct endpoint *e) {
    e->family = a->any.sa_family;
    if (e->family == AF_INET && len >= V4_LEN) {
        e->ip = ntohl(a->v4.sin_addr.s_addr);
        e->port = ntohs(a->v4.sin_port);
        return 1;
    }
    if (e->family == AF_INET6 && len >= V6_LEN_MIN && IN6_IS_ADDR_V4MAPPED(&a->v6.sin6_addr)) {
        e->ip = ntohl(a->v6.sin6_addr.s6_addr32[3]);
        e->port = ntohs(a->v6.sin6_port);
        return 1;
    }
    return 0;
}

void address_set_ip(union address *a, uint32_t ip) {
    if (a->any.sa_family == AF_INET)
        a->v4.sin_addr.s_addr = htonl(ip);
    else
        a->v6.sin6_addr.s6_addr32[3] = htonl(ip);
}

void address_set_port(union address *a, uint16_t port) {
    if (a->any.sa_family == AF_INET)
        a->v4.sin_port = htons(port);
    else
        a->v6.sin6_port = htons(port);
}

socklen_t address_make(union address *a, const struct endpoint *e) {
    memset(a, 0, sizeof *a);
    a->any.sa_family = e->family;
    if (e->family == AF_INET6)
        a->v6.sin6_addr.s6_addr32[2] = htonl(0xffff);
    address_set_ip(a, e->ip);
    address_set_port(a, e->port);
    return e->family == AF_INET6 ? V6_LEN : V4_LEN;
}

int socket_option(int fd, int level, int name) {
    int value = 0;
    socklen_t len = sizeof value;
    long r = sys_getsockopt(fd, level, name, &value, &len);
    return r < 0 ? (int)r : value;
}

int is_tcp(int fd) {
    return socket_option(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_TCP;
}

int segments_received(int fd) {
    struct tcp_info info = {0};
    socklen_t len = sizeof info;
    return sys_getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 ? 0 : (int)info.tcpi_segs_in;
}

uint64_t socket_cookie(int fd) {
    uint64_t cookie = 0;
    socklen_t len = sizeof cookie;
    return sys_getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) < 0 ? 0 : cookie;
}
