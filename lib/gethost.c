/* SPDX-License-Identifier: Apache-2.0 */
/* The gethostbyname and gethostbyaddr families. */
#include <errno.h>
#include <netdb.h>

#include "addr.h"
#include "entry.h"
#include "libc.h"
#include "mem.h"
#include "nodes.h"

/* libc's own limit is 35 addresses as well; each needs its bytes and a pointer. */
enum { HOST_ADDRESSES = 35, HOST_BYTES = 1024 };

/* What the functions without _r return: one per process, as libc has it. */
static struct hostent shared;
static char shared_bytes[HOST_BYTES] __attribute__((aligned(16)));

static int answer_error(int h_error) {
    if (libc()->h_errno_location)
        *libc()->h_errno_location() = h_error;
    return h_error;
}

/* Lays name, addresses and pointers out in the caller's bytes. ERANGE: too few. */
static int lay_out(const struct node_addresses *n, int family, struct hostent *host, char *bytes,
                   size_t room) {
    uint32_t count = n->count < HOST_ADDRESSES ? n->count : HOST_ADDRESSES;
    size_t pad = -(uintptr_t)bytes % sizeof(char *), each = family == AF_INET6 ? 16 : 4;
    size_t need = pad + (count + 2) * sizeof(char *) + count * each + strlen(n->name) + 1;
    char **list, *at;
    if (room < need)
        return ERANGE;
    list = (char **)(void *)(bytes + pad);
    at = (char *)(list + count + 2);
    for (uint32_t i = 0; i < count; i++, at += each) {
        uint32_t ip = htonl(n->ip[i]);
        memset(at, 0, each);
        if (each == 16)
            memset(at + 10, 0xff, 2);
        memcpy(at + each - sizeof ip, &ip, sizeof ip);
        list[i] = at;
    }
    list[count] = NULL;
    list[count + 1] = NULL; /* no aliases */
    memcpy(at, n->name, strlen(n->name) + 1);
    *host = (struct hostent){at, list + count + 1, family, (int)each, list};
    return 0;
}

/* 0, ERANGE, or -1 with *h_error: how the _r functions end. */
static int by_name(const struct node_addresses *n, int family, struct hostent *host, char *bytes,
                   size_t room, struct hostent **result, int *h_error) {
    int error;
    *result = NULL;
    if (family != AF_INET) {
        *h_error = HOST_NOT_FOUND;
        return 0;
    }
    error = lay_out(n, AF_INET, host, bytes, room);
    if (error) {
        *h_error = NETDB_INTERNAL;
        libc_set_errno(error);
        return error;
    }
    *result = host;
    return 0;
}

static struct hostent *by_name_shared(const struct node_addresses *n, int family) {
    struct hostent *result;
    int h_error = 0;
    by_name(n, family, &shared, shared_bytes, sizeof shared_bytes, &result, &h_error);
    if (!result)
        answer_error(h_error);
    return result;
}

ENTRY(struct hostent *, gethostbyname, (const char *name)) {
    struct node_addresses n;
    if (nodes_lookup(name, &n))
        return by_name_shared(&n, AF_INET);
    return libc()->gethostbyname ? libc()->gethostbyname(name) : NULL;
}

ENTRY(struct hostent *, gethostbyname2, (const char *name, int family)) {
    struct node_addresses n;
    if ((family == AF_INET || family == AF_INET6) && nodes_lookup(name, &n))
        return by_name_shared(&n, family);
    return libc()->gethostbyname2 ? libc()->gethostbyname2(name, family) : NULL;
}

ENTRY(int, gethostbyname_r,
      (const char *name, struct hostent *host, char *bytes, size_t room, struct hostent **result,
       int *h_error)) {
    struct node_addresses n;
    if (nodes_lookup(name, &n))
        return by_name(&n, AF_INET, host, bytes, room, result, h_error);
    if (!libc()->gethostbyname_r)
        return ENOSYS;
    return libc()->gethostbyname_r(name, host, bytes, room, result, h_error);
}

ENTRY(int, gethostbyname2_r,
      (const char *name, int family, struct hostent *host, char *bytes, size_t room,
       struct hostent **result, int *h_error)) {
    struct node_addresses n;
    if ((family == AF_INET || family == AF_INET6) && nodes_lookup(name, &n))
        return by_name(&n, family, host, bytes, room, result, h_error);
    if (!libc()->gethostbyname2_r)
        return ENOSYS;
    return libc()->gethostbyname2_r(name, family, host, bytes, room, result, h_error);
}

/* A node for an address: its name, and the address that was asked about. */
static int reverse(const void *address, socklen_t len, int family, struct node_addresses *n) {
    uint32_t ip;
    if (!address || !nodes_reverse_binary(address, len, family, n->name))
        return 0;
    memcpy(&ip, (const char *)address + len - sizeof ip, sizeof ip);
    n->ip[0] = ntohl(ip);
    n->count = 1;
    return 1;
}

ENTRY(struct hostent *, gethostbyaddr, (const void *address, socklen_t len, int family)) {
    struct node_addresses n;
    if (reverse(address, len, family, &n) &&
        lay_out(&n, family, &shared, shared_bytes, sizeof shared_bytes) == 0)
        return &shared;
    return libc()->gethostbyaddr ? libc()->gethostbyaddr(address, len, family) : NULL;
}

ENTRY(int, gethostbyaddr_r,
      (const void *address, socklen_t len, int family, struct hostent *host, char *bytes,
       size_t room, struct hostent **result, int *h_error)) {
    struct node_addresses n;
    if (reverse(address, len, family, &n)) {
        int error = lay_out(&n, family, host, bytes, room);
        *result = error ? NULL : host;
        if (error)
            *h_error = NETDB_INTERNAL;
        if (error)
            libc_set_errno(error);
        return error;
    }
    if (!libc()->gethostbyaddr_r)
        return ENOSYS;
    return libc()->gethostbyaddr_r(address, len, family, host, bytes, room, result, h_error);
}
