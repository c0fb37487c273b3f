/* SPDX-License-Identifier: Apache-2.0 */
/* Looking names up in the node table as a resolver would. */
#include "nodes.h"

#include "addr.h"
#include "mem.h"
#include "view.h"

/* Lower case, one final dot dropped, padded. 0: cannot be a node's name. */
static int normalize(const char *name, char out[BOXER_NAME_LEN]) {
    unsigned n = 0;
    memset(out, 0, BOXER_NAME_LEN);
    for (; name[n]; n++) {
        char c = name[n];
        if (n == BOXER_NAME_LEN - 1 && !(c == '.' && name[n + 1] == 0))
            return 0;
        if (c == '.' && name[n + 1] == 0)
            break;
        out[n] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
    }
    return n > 0;
}

/* Addresses in figures are for libc, whatever the names in the table are. */
static int looks_numeric(const char *name) {
    int digits = 1;
    for (; *name; name++) {
        if (*name == ':')
            return 1;
        digits &= (*name >= '0' && *name <= '9') || *name == '.';
    }
    return digits;
}

int nodes_lookup(const char *name, struct node_addresses *found) {
    static uint32_t turns;
    struct table_info info;
    const void *table;
    uint32_t turn;
    if (looks_numeric(name) || !normalize(name, found->name))
        return 0;
    table = view_info(&info);
    if (!table)
        return 0;
    turn = __atomic_load_n(&turns, __ATOMIC_RELAXED);
    if (table_name(table, &info, found->name, turn, found->ip, NODE_ADDRESSES, &found->count) ==
        TABLE_HIT) {
        __atomic_fetch_add(&turns, 1, __ATOMIC_RELAXED);
        return 1;
    }
    if (memcmp(found->name, info.header.own_name, BOXER_NAME_LEN) != 0 || !info.header.own_overlay)
        return 0;
    found->ip[0] = info.header.own_overlay;
    found->count = 1;
    return 1;
}

int nodes_reverse(uint32_t ip, char name[BOXER_NAME_LEN]) {
    struct table_info info;
    const void *table = view_info(&info);
    if (!table || !in_overlay(&info, ip))
        return 0;
    name[0] = 0;
    if (ip == info.header.own_overlay && info.header.own_name[0])
        memcpy(name, info.header.own_name, BOXER_NAME_LEN);
    else if (table_reverse(table, &info, ip, name) != TABLE_HIT)
        name[0] = 0;
    return 1;
}

int nodes_reverse_binary(const void *address, unsigned len, int family, char name[BOXER_NAME_LEN]) {
    struct in6_addr six;
    uint32_t ip;
    if (family == AF_INET && len == sizeof ip) {
        memcpy(&ip, address, sizeof ip);
    } else if (family == AF_INET6 && len == sizeof six) {
        memcpy(&six, address, sizeof six);
        if (!IN6_IS_ADDR_V4MAPPED(&six))
            return 0;
        ip = six.s6_addr32[3];
    } else {
        return 0;
    }
    return nodes_reverse(ntohl(ip), name) && name[0];
}
