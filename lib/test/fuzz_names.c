/* SPDX-License-Identifier: Apache-2.0 */
/* The resolver over tables that hold anything: what a guest gets is well formed. */
#include <netdb.h>
#include <netinet/in.h>

#include "fuzz.h"

#include "../nodes.h"
#include "../view.h"

static void *table;
static volatile char sink;

const void *view(void) {
    return table;
}

const void *view_info(struct table_info *info) {
    return table_info(table, info) == TABLE_HIT ? table : NULL;
}

static void check_addrinfo(const char *name, const struct addrinfo *hints) {
    struct addrinfo *list = NULL;
    if (getaddrinfo(name, "80", hints, &list) != 0)
        return;
    CHECK(list);
    for (struct addrinfo *a = list; a; a = a->ai_next)
        CHECK(a->ai_addr && a->ai_addr->sa_family == a->ai_family);
    if (list->ai_canonname)
        CHECK(strlen(list->ai_canonname) < BOXER_NAME_LEN);
    freeaddrinfo(list);
}

static void check_host(const struct hostent *h) {
    CHECK(strlen(h->h_name) < BOXER_NAME_LEN && h->h_aliases && !h->h_aliases[0]);
    for (char **a = h->h_addr_list; *a; a++)
        for (int i = 0; i < h->h_length; i++)
            sink = (*a)[i]; /* all of it can be read */
}

static void check_hosts(const char *name, size_t room) {
    char *bytes = malloc(room);
    struct hostent host, *h = NULL;
    int error;
    if (gethostbyname_r(name, &host, bytes, room, &h, &error) == 0 && h)
        check_host(h);
    free(bytes);
    h = gethostbyname(name);
    if (h)
        check_host(h);
}

static void check_reverse(uint32_t ip, size_t room) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(ip)};
    char name[BOXER_NAME_LEN], *host;
    if (!nodes_reverse(ip, name) || !name[0])
        return; /* libc would ask the real resolver */
    CHECK(memchr(name, 0, sizeof name));
    host = malloc(room);
    if (getnameinfo((struct sockaddr *)&a, sizeof a, host, (socklen_t)room, NULL, 0, 0) == 0 &&
        room)
        CHECK(memchr(host, 0, room));
    free(host);
    check_host(gethostbyaddr(&a.sin_addr, sizeof a.sin_addr, AF_INET));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input in = {data, size};
    struct addrinfo hints = {.ai_flags = (int)take(&in, 1), .ai_socktype = (int)take(&in, 1) % 4};
    uint32_t ip = take(&in, 4);
    size_t room = take(&in, 2) % 1200;
    char name[80] = {0};
    struct node_addresses found;
    hints.ai_family = (const int[]){AF_UNSPEC, AF_INET, AF_INET6, 99}[take(&in, 1) % 4];
    for (unsigned i = 0, n = take(&in, 1) % sizeof name; i < n; i++)
        name[i] = (char)take(&in, 1);
    table = fuzz_table(&in);
    if (nodes_lookup(name, &found)) {
        CHECK(found.count && found.count <= NODE_ADDRESSES);
        hints.ai_flags &= ~AI_NUMERICHOST;
        if (hints.ai_family != 99)
            check_addrinfo(name, &hints);
        check_addrinfo(name, NULL);
        check_hosts(name, room);
    }
    check_reverse(ip, room);
    fuzz_restore();
    return 0;
}
