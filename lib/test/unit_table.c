/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the golden table, a table that is written meanwhile, and nonsense. */
#include <pthread.h>

#include "unit.h"

#include "../tableread.h"

static void pad(char name[BOXER_NAME_LEN], const char *text) {
    memset(name, 0, BOXER_NAME_LEN);
    memcpy(name, text, strlen(text));
}

static void test_header(const void *t) {
    struct table_info info;
    CHECK(table_info(t, &info) == TABLE_HIT);
    CHECK(info.header.cidr_ip == 0x64500000 && info.header.cidr_mask == 0xffff0000);
    CHECK(info.header.own_id == 3 && info.header.own_overlay == 0x64500003);
    CHECK(info.header.own_underlay == 0x64400103 && info.header.overlay_port == 7717);
    CHECK(strcmp(info.header.own_name, "front") == 0 && strcmp(info.header.network, "shop") == 0);
    CHECK(table_heartbeat(t) == 123456789);
}

static void test_members(const void *t) {
    static const int transports[] = {BOXER_TRANSPORT_NATIVE, BOXER_TRANSPORT_NATIVE,
                                     BOXER_TRANSPORT_HOLD, BOXER_TRANSPORT_DIRECT};
    struct table_info info;
    struct boxer_member m;
    uint32_t overlay;
    for (uint32_t id = 2; id <= 5; id++) {
        CHECK(table_member(t, &info, 0x64500000 + id, &m) == TABLE_HIT);
        CHECK(m.id == id && m.port == 7717 && m.transport == transports[id - 2]);
    }
    CHECK(table_member(t, &info, 0x64500001, &m) == TABLE_MISS);
    CHECK(table_member(t, &info, 0x64500006, &m) == TABLE_MISS);
    CHECK(table_native(t, &info, 0x64400102, &overlay) == TABLE_HIT && overlay == 0x64500002);
    CHECK(table_native(t, &info, 0x64400103, &overlay) == TABLE_HIT && overlay == 0x64500003);
    CHECK(table_native(t, &info, 0x64400105, &overlay) == TABLE_MISS);
}

static void test_names(const void *t) {
    struct table_info info;
    char name[BOXER_NAME_LEN];
    uint32_t addrs[4], count;
    pad(name, "logic");
    CHECK(table_name(t, &info, name, 0, addrs, 4, &count) == TABLE_HIT && count == 2);
    CHECK(addrs[0] == 0x64500004 && addrs[1] == 0x64500005);
    CHECK(table_name(t, &info, name, 1, addrs, 4, &count) == TABLE_HIT);
    CHECK(addrs[0] == 0x64500005 && addrs[1] == 0x64500004);
    CHECK(table_name(t, &info, name, 0xffffffff, addrs, 1, &count) == TABLE_HIT && count == 1);
    pad(name, "store");
    CHECK(table_name(t, &info, name, 7, addrs, 4, &count) == TABLE_HIT && addrs[0] == 0x64500002);
    pad(name, "front");
    CHECK(table_name(t, &info, name, 7, addrs, 4, &count) == TABLE_HIT && addrs[0] == 0x64500003);
    pad(name, "logi");
    CHECK(table_name(t, &info, name, 0, addrs, 4, &count) == TABLE_MISS && count == 0);
    CHECK(table_reverse(t, &info, 0x64500002, name) == TABLE_HIT && !strcmp(name, "store"));
    CHECK(table_reverse(t, &info, 0x64500004, name) == TABLE_HIT && !strcmp(name, "logic-0"));
    CHECK(table_reverse(t, &info, 0x64500009, name) == TABLE_MISS);
}

static void expect_unusable(struct boxer_table *t) {
    struct table_info info;
    CHECK(table_info(t, &info) == TABLE_UNUSABLE);
}

/* Every number that could lead out of the memory. */
static void test_refusals(void) {
    struct boxer_table *t = unit_table(), good = *t;
    uint32_t *offsets[] = {&t->member_off, &t->name_off, &t->addr_off, &t->native_off};
    uint32_t *counts[] = {&t->member_count, &t->name_count, &t->addr_count, &t->native_count};
    for (int i = 0; i < 4; i++) {
        static const uint32_t bad[] = {0, 128, 257, BOXER_TABLE_SIZE, 0xfffffff8};
        for (int k = 0; k < 5; k++) {
            *offsets[i] = bad[k];
            expect_unusable(t);
            *t = good;
        }
        *counts[i] = 0xffffffff;
        expect_unusable(t);
        *counts[i] = 16385;
        expect_unusable(t);
        *t = good;
    }
    t->magic++;
    expect_unusable(t);
    *t = good;
    t->version++;
    expect_unusable(t);
    *t = good;
    t->size--;
    expect_unusable(t);
    *t = good;
    t->seq |= 1; /* its writer died: no waiting for ever */
    expect_unusable(t);
    free(t);
}

struct race {
    struct boxer_table *table;
    int stop;
};

/* Keeps own_overlay and own_underlay equal, in consistent states. */
static void *write_on(void *argument) {
    struct race *r = argument;
    for (uint32_t n = 0; !__atomic_load_n(&r->stop, __ATOMIC_RELAXED); n++) {
        uint32_t seq = r->table->seq;
        __atomic_store_n(&r->table->seq, seq + 1, __ATOMIC_RELAXED);
        __atomic_thread_fence(__ATOMIC_RELEASE);
        __atomic_store_n(&r->table->own_overlay, n, __ATOMIC_RELAXED);
        for (volatile int i = 0; i < 100; i++) {
        }
        __atomic_store_n(&r->table->own_underlay, n, __ATOMIC_RELAXED);
        __atomic_store_n(&r->table->seq, seq + 2, __ATOMIC_RELEASE);
        for (volatile int i = 0; i < 200; i++) {
        }
    }
    return NULL;
}

static void test_race(void) {
    struct race r = {unit_table(), 0};
    pthread_t writer;
    int hits = 0;
    r.table->own_overlay = r.table->own_underlay = 0;
    CHECK(pthread_create(&writer, NULL, write_on, &r) == 0);
    for (int i = 0; i < 20000; i++) {
        struct table_info info;
        if (table_info(r.table, &info) != TABLE_HIT)
            continue;
        hits++;
        CHECK(info.header.own_overlay == info.header.own_underlay);
    }
    __atomic_store_n(&r.stop, 1, __ATOMIC_RELAXED);
    pthread_join(writer, NULL);
    CHECK(hits > 19000);
    free(r.table);
}

void test_table(void) {
    void *t = unit_table();
    test_header(t);
    test_members(t);
    test_names(t);
    free(t);
    test_refusals();
    test_race();
}

static void query_all(const void *t) {
    struct table_info info;
    struct boxer_member m;
    char name[BOXER_NAME_LEN];
    uint32_t addrs[8], count, overlay;
    pad(name, "logic");
    table_member(t, &info, 0x64500004, &m);
    table_native(t, &info, 0x64400102, &overlay);
    table_name(t, &info, name, (uint32_t)rand(), addrs, 8, &count);
    CHECK(count <= 8);
    table_reverse(t, &info, 0x64500004, name);
    CHECK(memchr(name, 0, sizeof name));
}

/* Damage where it counts: in the header, and in what its offsets lead to. */
void test_hostile_tables(unsigned rounds) {
    srand(1);
    for (unsigned i = 0; i < rounds / 10 + 1; i++) {
        uint32_t *t = unit_table();
        struct boxer_table *header = (struct boxer_table *)(void *)t;
        for (int k = 0; k < 40; k++) {
            uint32_t where = (uint32_t)rand() % 3;
            uint32_t base = where == 0   ? 8 + (uint32_t)rand() % 24
                            : where == 1 ? 131328 / 4 + (uint32_t)rand() % 200
                                         : (uint32_t)rand() % (BOXER_TABLE_SIZE / 4);
            uint32_t value = rand() % 2 ? (uint32_t)rand() : (uint32_t)rand() % BOXER_TABLE_SIZE;
            t[base] = rand() % 4 ? t[base] ^ (1u << rand() % 32) : value;
        }
        header->seq &= ~1u;
        query_all(t);
        header->name_count = (uint32_t)rand() % BOXER_TABLE_NAMES;
        header->addr_count = (uint32_t)rand() % BOXER_TABLE_ADDRS;
        query_all(t);
        free(t);
    }
}
