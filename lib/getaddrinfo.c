/* SPDX-License-Identifier: Apache-2.0 */
/*
 * getaddrinfo for names of the network. libc itself resolves the first address
 * in figures: so services, socket types, their order and all errors are those
 * of the guest's libc. Its answer is the pattern for a list of our own, which is
 * in one block: a hook may not use the heap, and a mapping per look-up takes
 * longer than the rest of it, so a few blocks are kept here.
 */
#include <netdb.h>
#include <sys/mman.h>

#include "addr.h"
#include "entry.h"
#include "libc.h"
#include "mem.h"
#include "names.h"
#include "nodes.h"
#include "sys.h"

#ifndef AI_IDN
#define AI_IDN 0x0040
#define AI_CANONIDN 0x0080
#endif

#define MARK UINT64_C(0x9d3f42584f58e11d)

/* Aligned to its size, so that mark can be read if the first byte can. */
struct node {
    struct addrinfo info;
    union {
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address;
    uint32_t unused;
    struct block *block;
    uint64_t mark; /* MARK ^ its own address */
} __attribute__((aligned(128)));

_Static_assert(sizeof(struct node) == 128, "a power of two, for is_own");

struct block {
    size_t size;
    uint32_t left; /* nodes not yet freed: callers may free parts of a list */
    char name[BOXER_NAME_LEN];
} __attribute__((aligned(128)));

static int is_own(const struct addrinfo *a) {
    const struct node *n = (const struct node *)(const void *)a;
    return (uintptr_t)a % sizeof *n == 0 && n->mark == (MARK ^ (uintptr_t)n);
}

enum { KEPT = 16, KEPT_SIZE = 1024 }; /* a block and seven nodes */

static struct { char room[KEPT_SIZE]; } kept[KEPT] __attribute__((aligned(128)));
static uint8_t taken[KEPT];

static struct block *take_kept(size_t size) {
    for (int i = 0; size <= KEPT_SIZE && i < KEPT; i++)
        if (!__atomic_exchange_n(&taken[i], 1, __ATOMIC_ACQUIRE))
            return (struct block *)(void *)&kept[i];
    return NULL;
}

static void release(struct node *n) {
    struct block *b = n->block;
    size_t offset = (size_t)((char *)b - kept[0].room);
    n->mark = 0;
    if (__atomic_sub_fetch(&b->left, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    if (offset < sizeof kept)
        __atomic_store_n(&taken[offset / KEPT_SIZE], 0, __ATOMIC_RELEASE);
    else
        sys_munmap(b, b->size);
}

static void fill_address(struct node *n, const struct addrinfo *pattern, uint32_t ip, int family) {
    struct endpoint e = {ip, 0, (uint16_t)family};
    union address a, given;
    struct endpoint from;
    memcpy(&given, pattern->ai_addr, V4_LEN);
    if (endpoint_of(&given, V4_LEN, &from))
        e.port = from.port;
    n->info.ai_addrlen = address_make(&a, &e);
    memcpy(&n->address, &a, n->info.ai_addrlen);
}

static struct node *fill_node(struct block *b, uint32_t index, const struct addrinfo *pattern,
                              uint32_t ip, const struct addrinfo *hints) {
    struct node *n = (struct node *)(void *)(b + 1) + index;
    int family = hints && hints->ai_family == AF_INET6 ? AF_INET6 : AF_INET;
    n->info = *pattern;
    n->info.ai_flags = hints ? hints->ai_flags : pattern->ai_flags;
    n->info.ai_family = family;
    n->info.ai_canonname = NULL;
    n->info.ai_next = NULL;
    n->info.ai_addr = (struct sockaddr *)&n->address;
    fill_address(n, pattern, ip, family);
    n->block = b;
    n->mark = MARK ^ (uintptr_t)n;
    return n;
}

static struct block *make_block(uint32_t nodes, const char *name) {
    size_t size = sizeof(struct block) + nodes * sizeof(struct node);
    struct block *b = take_kept(size);
    if (!b) {
        long at = sys_mmap(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
        if (at < 0 && at > -4096)
            return NULL;
        b = (struct block *)at;
    }
    b->size = size;
    b->left = nodes;
    memcpy(b->name, name, BOXER_NAME_LEN);
    return b;
}

static uint32_t length(const struct addrinfo *a) {
    uint32_t n = 0;
    for (; a && n < 64; a = a->ai_next)
        n++;
    return n;
}

static int build(const struct node_addresses *found, const struct addrinfo *pattern,
                 const struct addrinfo *hints, struct addrinfo **result) {
    uint32_t per_address = length(pattern), index = 0;
    struct block *b = make_block(found->count * per_address, found->name);
    struct addrinfo **link = result;
    if (!b)
        return EAI_MEMORY;
    for (uint32_t i = 0; i < found->count; i++) {
        const struct addrinfo *p = pattern;
        for (uint32_t k = 0; k < per_address; k++, p = p->ai_next) {
            struct node *n = fill_node(b, index++, p, found->ip[i], hints);
            *link = &n->info;
            link = &n->info.ai_next;
        }
    }
    if (hints && (hints->ai_flags & AI_CANONNAME))
        (*result)->ai_canonname = b->name;
    return 0;
}

static void write_figures(char *out, uint32_t ip) {
    for (int shift = 24; shift >= 0; shift -= 8) {
        unsigned part = ip >> shift & 255;
        if (part >= 100)
            *out++ = (char)('0' + part / 100);
        if (part >= 10)
            *out++ = (char)('0' + part / 10 % 10);
        *out++ = (char)('0' + part % 10);
        *out++ = shift ? '.' : 0;
    }
}

static int resolve_node(const struct node_addresses *found, const char *service,
                        const struct addrinfo *hints, struct addrinfo **result) {
    const int drop = AI_V4MAPPED | AI_ALL | AI_ADDRCONFIG | AI_CANONNAME | AI_IDN | AI_CANONIDN;
    struct addrinfo wanted = {0}, *pattern;
    char figures[INET_ADDRSTRLEN];
    int error;
    if (hints) {
        /* A host with nothing but A records. */
        if (hints->ai_family == AF_INET6 && !(hints->ai_flags & AI_V4MAPPED))
            return EAI_NONAME;
        wanted.ai_flags = hints->ai_flags & ~drop;
        wanted.ai_socktype = hints->ai_socktype;
        wanted.ai_protocol = hints->ai_protocol;
    }
    wanted.ai_flags |= AI_NUMERICHOST;
    wanted.ai_family = AF_INET;
    write_figures(figures, found->ip[0]);
    error = libc()->getaddrinfo(figures, service, &wanted, &pattern);
    if (error)
        return error;
    error = build(found, pattern, hints, result);
    libc()->freeaddrinfo(pattern);
    return error;
}

static int is_ours(const char *node, const struct addrinfo *hints, struct node_addresses *found) {
    if (!node || (hints && (hints->ai_flags & AI_NUMERICHOST)))
        return 0;
    if (hints && hints->ai_family != AF_UNSPEC && hints->ai_family != AF_INET &&
        hints->ai_family != AF_INET6)
        return 0;
    return nodes_lookup(node, found);
}

int getaddrinfo_own(const char *node, const char *service, const struct addrinfo *hints,
                    struct addrinfo **result, int *error) {
    struct node_addresses found;
    if (!libc()->getaddrinfo || !libc()->freeaddrinfo || !is_ours(node, hints, &found))
        return 0;
    *error = resolve_node(&found, service, hints, result);
    return 1;
}

ENTRY(int, getaddrinfo,
      (const char *node, const char *service, const struct addrinfo *hints,
       struct addrinfo **result)) {
    int error;
    if (getaddrinfo_own(node, service, hints, result, &error))
        return error;
    return libc()->getaddrinfo ? libc()->getaddrinfo(node, service, hints, result) : EAI_FAIL;
}

ENTRY(void, freeaddrinfo, (struct addrinfo * list)) {
    while (list && is_own(list)) {
        struct addrinfo *next = list->ai_next;
        release((struct node *)(void *)list);
        list = next;
    }
    if (list && libc()->freeaddrinfo)
        libc()->freeaddrinfo(list);
}
