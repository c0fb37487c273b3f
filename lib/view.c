/* SPDX-License-Identifier: Apache-2.0 */
/* Fetching and keeping the node table. */
#include "view.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "ipc.h"
#include "sys.h"

#ifndef F_GET_SEALS
#define F_GET_SEALS 1034
#endif
#ifndef F_SEAL_SHRINK
#define F_SEAL_SHRINK 0x0002
#endif

#define FETCH_PATIENCE (1 * SECOND)
#define RETRY_INTERVAL (1 * SECOND)
#define SILENCE (3 * SECOND)

/*
 * A mapping that was replaced stays: a reader may be stopped in the middle of
 * it for any time. Each replacement is a restart of the supervisor, so they are
 * few; after this many the newest takes the place of the oldest. A reader that
 * was stopped since then meets a table all the same, and believes none of its
 * numbers.
 */
enum { MAPPINGS_MAX = 64 };

static const void *current;
static uint64_t current_inode;
static int64_t last_try;
static const void *mappings[MAPPINGS_MAX];
static unsigned replaced;

/* Only memory that can no longer shrink may be mapped: else reading can kill. */
static const void *map_table(int fd, uint64_t *inode) {
    struct stat st;
    long seals = sys_fcntl(fd, F_GET_SEALS, 0);
    long at;
    if (sys_fstat(fd, &st) < 0 || st.st_size != BOXER_TABLE_SIZE)
        return NULL;
    if (seals < 0 || !(seals & F_SEAL_SHRINK))
        return NULL;
    *inode = st.st_ino;
    if (st.st_ino == __atomic_load_n(&current_inode, __ATOMIC_RELAXED))
        return NULL; /* the same table: its writer is merely slow */
    at = sys_mmap(BOXER_TABLE_SIZE, PROT_READ, MAP_SHARED, fd);
    return at < 0 && at > -4096 ? NULL : (const void *)at;
}

static const void *fetch_table(const struct identity *id, uint64_t *inode) {
    struct boxer_request q = {.op = BOXER_OP_TABLE};
    struct boxer_response r;
    struct table_info info;
    const void *at = NULL;
    int fd;
    if (ipc_once(id, &q, &r, &fd, FETCH_PATIENCE) != 0)
        return NULL;
    if (fd >= 0) {
        if (r.error == 0)
            at = map_table(fd, inode);
        sys_close(fd);
    }
    if (at && table_info(at, &info) != TABLE_HIT) {
        sys_munmap((void *)at, BOXER_TABLE_SIZE);
        at = NULL;
    }
    return at;
}

/* Where the oldest mapping was, or where it is if there are few. */
static const void *settle(const void *fresh, const void *oldest) {
    long at;
    if (!oldest)
        return fresh;
    at = sys_mremap_onto((void *)fresh, (void *)oldest, BOXER_TABLE_SIZE);
    return at == (long)oldest ? oldest : fresh;
}

/*
 * What a thread mapped in vain goes, but not what it moved to where another one
 * was: that may be the table in use, of a thread that was faster at this turn.
 */
static void withdraw(const void *fresh, const void *oldest, const void **place) {
    if (fresh == oldest)
        __atomic_store_n(place, fresh, __ATOMIC_RELEASE);
    else
        sys_munmap((void *)fresh, BOXER_TABLE_SIZE);
}

/* Threads may fetch at the same time; the first to finish wins. */
static const void *replace(const void *old, const struct identity *id) {
    unsigned turn = __atomic_load_n(&replaced, __ATOMIC_ACQUIRE);
    const void **place = &mappings[turn % MAPPINGS_MAX];
    uint64_t inode = 0;
    const void *oldest, *fresh = fetch_table(id, &inode);
    if (!fresh)
        return __atomic_load_n(&current, __ATOMIC_ACQUIRE);
    oldest = __atomic_exchange_n(place, NULL, __ATOMIC_ACQ_REL);
    fresh = settle(fresh, oldest);
    if (!__atomic_compare_exchange_n(&current, &old, fresh, 0, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE)) {
        withdraw(fresh, oldest, place);
        return old;
    }
    __atomic_store_n(&current_inode, inode, __ATOMIC_RELAXED);
    __atomic_store_n(place, fresh, __ATOMIC_RELEASE);
    __atomic_store_n(&replaced, turn + 1, __ATOMIC_RELEASE);
    return fresh;
}

static int silent(const void *table, int64_t now) {
    return now - (int64_t)table_heartbeat(table) > SILENCE;
}

const void *view(void) {
    const struct environment *e = environment();
    const void *table = __atomic_load_n(&current, __ATOMIC_ACQUIRE);
    int64_t now, last;
    if (!e)
        return NULL;
    now = clock_now();
    if (table && !silent(table, now))
        return table;
    last = __atomic_load_n(&last_try, __ATOMIC_RELAXED);
    if (last && now - last < RETRY_INTERVAL)
        return table;
    if (!table) {
        /* The very first time nobody may miss it, so every thread fetches. */
        table = replace(NULL, &e->identity);
        if (!table)
            __atomic_store_n(&last_try, now, __ATOMIC_RELAXED);
        return table;
    }
    if (!__atomic_compare_exchange_n(&last_try, &last, now, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        return table;
    return replace(table, &e->identity);
}

const void *view_info(struct table_info *info) {
    const void *table = view();
    return table && table_info(table, info) == TABLE_HIT ? table : NULL;
}
