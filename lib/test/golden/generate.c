/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes table.bin, request.bin and response.bin into the directory given as
 * the only argument. See README in this directory for what they contain. Run
 * it after a change of table.h or wire.h, and say so to the Go side.
 */
#include <arpa/inet.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "../../table.h"
#include "../../wire.h"

static uint8_t image[BOXER_TABLE_SIZE];

static uint32_t ip4(const char *text) {
    struct in_addr a;
    if (inet_pton(AF_INET, text, &a) != 1)
        abort();
    return ntohl(a.s_addr);
}

static void save(const char *dir, const char *name, const void *data, size_t size) {
    char path[4096];
    FILE *f;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) {
        perror(path);
        exit(1);
    }
}

static void fill_request(struct boxer_request *q) {
    memset(q, 0, sizeof *q);
    q->magic = BOXER_REQUEST_MAGIC;
    q->version = BOXER_WIRE_VERSION;
    q->op = BOXER_OP_CONNECT;
    for (unsigned i = 0; i < BOXER_TOKEN_LEN; i++)
        q->token[i] = (uint8_t)i;
    q->cookie = 0x1122334455667788ULL;
    q->flags = BOXER_FLAG_NONBLOCK | BOXER_FLAG_V6;
    q->ip = ip4("100.80.0.7");
    q->port = 6379;
    q->cpu = 3;
    q->backlog = 511;
    q->pid = 4242;
}

static void fill_response(struct boxer_response *r) {
    memset(r, 0, sizeof *r);
    r->magic = BOXER_RESPONSE_MAGIC;
    r->version = BOXER_WIRE_VERSION;
    r->op = BOXER_OP_CONNECT;
    for (unsigned i = 0; i < BOXER_TOKEN_LEN; i++)
        r->token[i] = (uint8_t)(0x10 + i);
    r->error = 0;
    r->action = BOXER_ACTION_DIRECT;
    r->ip = ip4("100.64.1.2");
    r->port = 7717;
    r->family = AF_INET;
    r->local_ip = ip4("100.80.0.3");
    r->local_port = 40000;
    r->peer_ip = ip4("100.80.0.7");
    r->peer_port = 6379;
    r->preface_len = 96;
    for (unsigned i = 0; i < 96; i++)
        r->preface[i] = (uint8_t)i;
}

static void add_member(struct boxer_table *t, uint32_t id, const char *overlay,
                       const char *underlay, uint8_t transport) {
    struct boxer_member *m = (struct boxer_member *)(image + t->member_off) + t->member_count++;
    m->id = id;
    m->overlay = ip4(overlay);
    m->underlay = underlay ? ip4(underlay) : 0;
    m->port = 7717;
    m->transport = transport;
}

static void add_native(struct boxer_table *t, const char *underlay, const char *overlay) {
    struct boxer_native *n = (struct boxer_native *)(image + t->native_off) + t->native_count++;
    n->underlay = ip4(underlay);
    n->overlay = ip4(overlay);
}

static void add_name(struct boxer_table *t, const char *name, const char *a, const char *b) {
    struct boxer_name *n = (struct boxer_name *)(image + t->name_off) + t->name_count++;
    uint32_t *addrs = (uint32_t *)(void *)(image + t->addr_off);
    memcpy(n->name, name, strlen(name));
    n->first = t->addr_count;
    addrs[t->addr_count++] = ip4(a);
    if (b)
        addrs[t->addr_count++] = ip4(b);
    n->count = t->addr_count - n->first;
}

static void fill_header(struct boxer_table *t) {
    t->magic = BOXER_TABLE_MAGIC;
    t->version = BOXER_TABLE_VERSION;
    t->size = BOXER_TABLE_SIZE;
    t->seq = 2;
    t->heartbeat_ns = 123456789;
    t->cidr_ip = ip4("100.80.0.0");
    t->cidr_mask = 0xffff0000u;
    t->own_overlay = ip4("100.80.0.3");
    t->own_underlay = ip4("100.64.1.3");
    t->own_id = 3;
    t->overlay_port = 7717;
    t->member_off = sizeof *t;
    t->native_off = t->member_off + BOXER_TABLE_MEMBERS * (uint32_t)sizeof(struct boxer_member);
    t->name_off = t->native_off + BOXER_TABLE_MEMBERS * (uint32_t)sizeof(struct boxer_native);
    t->addr_off = t->name_off + BOXER_TABLE_NAMES * (uint32_t)sizeof(struct boxer_name);
    strcpy(t->own_name, "front");
    strcpy(t->network, "shop");
}

static size_t fill_table(void) {
    struct boxer_table *t = (struct boxer_table *)(void *)image;
    fill_header(t);
    add_member(t, 2, "100.80.0.2", "100.64.1.2", BOXER_TRANSPORT_NATIVE);
    add_member(t, 3, "100.80.0.3", "100.64.1.3", BOXER_TRANSPORT_NATIVE);
    add_member(t, 4, "100.80.0.4", NULL, BOXER_TRANSPORT_HOLD);
    add_member(t, 5, "100.80.0.5", "100.64.1.5", BOXER_TRANSPORT_DIRECT);
    add_native(t, "100.64.1.2", "100.80.0.2");
    add_native(t, "100.64.1.3", "100.80.0.3");
    add_name(t, "front", "100.80.0.3", NULL);
    add_name(t, "logic", "100.80.0.4", "100.80.0.5");
    add_name(t, "logic-0", "100.80.0.4", NULL);
    add_name(t, "logic-1", "100.80.0.5", NULL);
    add_name(t, "node-2", "100.80.0.2", NULL);
    add_name(t, "node-3", "100.80.0.3", NULL);
    add_name(t, "node-4", "100.80.0.4", NULL);
    add_name(t, "node-5", "100.80.0.5", NULL);
    add_name(t, "store", "100.80.0.2", NULL);
    return t->addr_off + t->addr_count * sizeof(uint32_t);
}

int main(int argc, char **argv) {
    struct boxer_request q;
    struct boxer_response r;
    if (argc != 2) {
        fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
        return 2;
    }
    fill_request(&q);
    fill_response(&r);
    save(argv[1], "request.bin", &q, sizeof q);
    save(argv[1], "response.bin", &r, sizeof r);
    save(argv[1], "table.bin", image, fill_table());
    return 0;
}
