/* SPDX-License-Identifier: Apache-2.0 */
/* Socket addresses: those of the guest (memory to be wary of) and our own. */
#ifndef BOXER_ADDR_H
#define BOXER_ADDR_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum { V4_LEN = sizeof(struct sockaddr_in), V6_LEN = sizeof(struct sockaddr_in6), V6_LEN_MIN = 24 };

/* Large enough for any address of any family. */
union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_storage storage;
};

/* An IPv4 address as the monitor thinks of it, and how the guest writes it. */
struct endpoint {
    uint32_t ip; /* host order */
    uint16_t port;
    uint16_t family; /* AF_INET, or AF_INET6 for a v4-mapped address */
};

/*
 * Whether n bytes at p can be read; what the kernel would answer with EFAULT
 * must not crash the guest here. See addr.c.
 */
int readable(const void *p, size_t n);

/* The guest's address in our own memory. 0: leave this call to the kernel. */
int address_from_guest(union address *a, const void *sa, socklen_t len);

/* 0 unless a is IPv4 or v4-mapped. */
int endpoint_of(const union address *a, socklen_t len, struct endpoint *e);

/* Puts another IPv4 address (or also port) in place; the rest stays. */
void address_set_ip(union address *a, uint32_t ip);
void address_set_port(union address *a, uint16_t port);

socklen_t address_make(union address *a, const struct endpoint *e);

/* Where the monitor binds a socket that waits at a hold address. */
#define HELD_AT 0x7f43fffeu /* 127.67.255.254 */

static inline int is_loopback(uint32_t ip) {
    return ip >> 24 == 127;
}

/* The socket's own idea of itself: SO_DOMAIN, SO_PROTOCOL ... or -errno. */
int socket_option(int fd, int level, int name);

/* Whether fd is a TCP socket, the only kind that is ours to care about. */
int is_tcp(int fd);

/* Segments that this connection, also one that is over, has received. */
int segments_received(int fd);

/* SO_COOKIE: the kernel's identity of a socket. 0 when unknown. */
uint64_t socket_cookie(int fd);

#endif
