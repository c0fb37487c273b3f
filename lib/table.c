/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the node table: seqlock, and no belief in any number it holds. */
#include "tableread.h"

#include "mem.h"
#include "sys.h"

enum { SPINS = 2000, SLEEPS = 200, SLEEP_NS = 100000 };

/* One consistent reading; called again when the table changed meanwhile. */
typedef int (*reading)(const uint8_t *base, const struct table_info *info, void *context);

static int fits(uint32_t off, uint32_t count, uint32_t max, uint32_t size, uint32_t align) {
    if (count > max || off % align || off < sizeof(struct boxer_table) || off > BOXER_TABLE_SIZE)
        return 0;
    return (uint64_t)count * size <= BOXER_TABLE_SIZE - off;
}

static int valid(const struct boxer_table *t) {
    return t->magic == BOXER_TABLE_MAGIC && t->version == BOXER_TABLE_VERSION &&
           t->size == BOXER_TABLE_SIZE &&
           fits(t->member_off, t->member_count, BOXER_TABLE_MEMBERS, sizeof(struct boxer_member),
                8) &&
           fits(t->native_off, t->native_count, BOXER_TABLE_MEMBERS, sizeof(struct boxer_native),
                4) &&
           fits(t->name_off, t->name_count, BOXER_TABLE_NAMES, sizeof(struct boxer_name), 4) &&
           fits(t->addr_off, t->addr_count, BOXER_TABLE_ADDRS, sizeof(uint32_t), 4);
}

/* Copies the header; later reads use only the copy's offsets and counts. */
static int load_info(const void *base, struct table_info *info) {
    memcpy(&info->header, base, sizeof info->header);
    info->header.own_name[BOXER_NAME_LEN - 1] = 0;
    info->header.network[BOXER_NAME_LEN - 1] = 0;
    return valid(&info->header);
}

static void wait_for_writer(int attempt) {
    if (attempt < SPINS)
        boxer_pause();
    else
        sys_nanosleep(SLEEP_NS);
}

static int read_consistently(const void *base, struct table_info *info, reading read,
                             void *context) {
    const uint32_t *seq = &((const struct boxer_table *)base)->seq;
    for (int attempt = 0; attempt < SPINS + SLEEPS; attempt++) {
        uint32_t before = __atomic_load_n(seq, __ATOMIC_ACQUIRE);
        int result = TABLE_UNUSABLE;
        if (before & 1) {
            wait_for_writer(attempt);
            continue;
        }
        if (load_info(base, info))
            result = read ? read(base, info, context) : TABLE_HIT;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (__atomic_load_n(seq, __ATOMIC_RELAXED) == before)
            return result;
    }
    return TABLE_UNUSABLE;
}

int table_info(const void *base, struct table_info *info) {
    return read_consistently(base, info, NULL, NULL);
}

uint64_t table_heartbeat(const void *base) {
    return __atomic_load_n(&((const struct boxer_table *)base)->heartbeat_ns, __ATOMIC_RELAXED);
}

struct member_query {
    uint32_t overlay;
    struct boxer_member *member;
};

static int read_member(const uint8_t *base, const struct table_info *info, void *context) {
    struct member_query *q = context;
    const struct boxer_member *all = (const void *)(base + info->header.member_off);
    uint32_t low = 0, high = info->header.member_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        uint32_t overlay = __atomic_load_n(&all[middle].overlay, __ATOMIC_RELAXED);
        if (overlay == q->overlay) {
            memcpy(q->member, &all[middle], sizeof *q->member);
            return TABLE_HIT;
        }
        if (overlay < q->overlay)
            low = middle + 1;
        else
            high = middle;
    }
    return TABLE_MISS;
}

int table_member(const void *base, struct table_info *info, uint32_t overlay,
                 struct boxer_member *m) {
    struct member_query q = {overlay, m};
    return read_consistently(base, info, read_member, &q);
}

struct native_query {
    uint32_t underlay;
    uint32_t overlay;
};

static int read_native(const uint8_t *base, const struct table_info *info, void *context) {
    struct native_query *q = context;
    const struct boxer_native *all = (const void *)(base + info->header.native_off);
    uint32_t low = 0, high = info->header.native_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        uint32_t underlay = __atomic_load_n(&all[middle].underlay, __ATOMIC_RELAXED);
        if (underlay == q->underlay) {
            q->overlay = __atomic_load_n(&all[middle].overlay, __ATOMIC_RELAXED);
            return TABLE_HIT;
        }
        if (underlay < q->underlay)
            low = middle + 1;
        else
            high = middle;
    }
    return TABLE_MISS;
}

int table_native(const void *base, struct table_info *info, uint32_t underlay, uint32_t *overlay) {
    struct native_query q = {underlay, 0};
    int result = read_consistently(base, info, read_native, &q);
    if (result == TABLE_HIT)
        *overlay = q.overlay;
    return result;
}

struct name_query {
    const char *name;
    uint32_t turn;
    uint32_t *addrs;
    uint32_t max;
    uint32_t count;
};

/* The addresses of one name from a rotating start, so that all are used. */
static int read_addrs(const uint8_t *base, const struct table_info *info,
                      const struct boxer_name *n, struct name_query *q) {
    const uint32_t *all = (const void *)(base + info->header.addr_off);
    if (n->first > info->header.addr_count || n->count > info->header.addr_count - n->first)
        return TABLE_UNUSABLE;
    q->count = n->count < q->max ? n->count : q->max;
    for (uint32_t i = 0; i < q->count; i++)
        q->addrs[i] =
            __atomic_load_n(&all[n->first + (q->turn % n->count + i) % n->count], __ATOMIC_RELAXED);
    return q->count ? TABLE_HIT : TABLE_MISS;
}

static int read_name(const uint8_t *base, const struct table_info *info, void *context) {
    struct name_query *q = context;
    const struct boxer_name *all = (const void *)(base + info->header.name_off);
    uint32_t low = 0, high = info->header.name_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        struct boxer_name n;
        int order;
        memcpy(&n, &all[middle], sizeof n);
        order = memcmp(n.name, q->name, BOXER_NAME_LEN);
        if (order == 0)
            return read_addrs(base, info, &n, q);
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return TABLE_MISS;
}

int table_name(const void *base, struct table_info *info, const char name[BOXER_NAME_LEN],
               uint32_t turn, uint32_t *addrs, uint32_t max, uint32_t *count) {
    struct name_query q = {name, turn, addrs, max, 0};
    int result = read_consistently(base, info, read_name, &q);
    *count = result == TABLE_HIT ? q.count : 0;
    return result;
}

struct reverse_query {
    uint32_t addr;
    char *name;
};

/* node-<id> is the last resort; a name with one holder says most. */
static int rank_of(const struct boxer_name *n) {
    if (has_prefix(n->name, "node-"))
        return 1;
    return n->count == 1 ? 3 : 2;
}

static int holds(const uint32_t *addrs, const struct boxer_name *n, uint32_t addr) {
    for (uint32_t i = 0; i < n->count; i++)
        if (__atomic_load_n(&addrs[n->first + i], __ATOMIC_RELAXED) == addr)
            return 1;
    return 0;
}

static int read_reverse(const uint8_t *base, const struct table_info *info, void *context) {
    struct reverse_query *q = context;
    const struct boxer_name *all = (const void *)(base + info->header.name_off);
    const uint32_t *addrs = (const void *)(base + info->header.addr_off);
    uint32_t budget = info->header.addr_count; /* names do not share addresses' places */
    int best = 0;
    for (uint32_t i = 0; i < info->header.name_count; i++) {
        struct boxer_name n;
        memcpy(&n, &all[i], sizeof n);
        if (n.count > budget || n.first > info->header.addr_count ||
            n.count > info->header.addr_count - n.first)
            return TABLE_UNUSABLE;
        budget -= n.count;
        n.name[BOXER_NAME_LEN - 1] = 0;
        if (!holds(addrs, &n, q->addr) || rank_of(&n) <= best)
            continue;
        best = rank_of(&n);
        memcpy(q->name, n.name, BOXER_NAME_LEN);
    }
    return best ? TABLE_HIT : TABLE_MISS;
}

int table_reverse(const void *base, struct table_info *info, uint32_t addr,
                  char name[BOXER_NAME_LEN]) {
    struct reverse_query q = {addr, name};
    return read_consistently(base, info, read_reverse, &q);
}
