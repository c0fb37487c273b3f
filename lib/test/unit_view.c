/* SPDX-License-Identifier: Apache-2.0 */
/* The table of a supervisor that restarts more often than mappings are kept. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "unit.h"

#include "../ipc.h"
#include "../view.h"

/* The rest of the monitor, as far as view.c knows it. */
#define environment() fake_environment()
#define clock_now() fake_clock()
#define ipc_once fake_ipc

static struct environment guest;
static int64_t now;
static uint32_t generation;
static int outrun; /* by another thread, while this one fetches */

static const void *outrun_replace(void);

const struct environment *fake_environment(void) {
    return &guest;
}

int64_t fake_clock(void) {
    return now;
}

int fake_ipc(const struct identity *id, struct boxer_request *q, struct boxer_response *r, int *fd,
             int64_t patience) {
    struct boxer_table *table = unit_table();
    (void)id, (void)q, (void)patience;
    if (outrun) {
        outrun = 0;
        CHECK(outrun_replace());
    }
    table->own_id = ++generation;
    *fd = memfd_create("unit-view", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(*fd >= 0 && write(*fd, table, BOXER_TABLE_SIZE) == BOXER_TABLE_SIZE);
    CHECK(fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
    free(table);
    r->error = 0;
    return 0;
}

#include "../view.c"

static const void *outrun_replace(void) {
    return replace(current, &guest.identity);
}

static unsigned mapped(void) {
    char line[512];
    unsigned count = 0;
    FILE *f = fopen("/proc/self/maps", "r");
    CHECK(f);
    while (fgets(line, sizeof line, f))
        count += strstr(line, "unit-view") != NULL;
    fclose(f);
    return count;
}

/* Two threads fetch at the same time: the table that is left can be read. */
static void test_outrun(void) {
    struct table_info info;
    now += 2 * RETRY_INTERVAL;
    outrun = 1;
    CHECK(view_info(&info) && !outrun);
    CHECK(mapped() == MAPPINGS_MAX);
    now += 2 * RETRY_INTERVAL;
    CHECK(view_info(&info) && info.header.own_id == generation);
    CHECK(mapped() == MAPPINGS_MAX);
}

void test_view(void) {
    now = 200 * SECOND; /* the golden heartbeat is long ago: each look is a restart */
    for (uint32_t restart = 1; restart <= 3 * MAPPINGS_MAX; restart++) {
        struct table_info info;
        now += 2 * RETRY_INTERVAL;
        CHECK(view_info(&info));
        CHECK(info.header.own_id == restart);
        CHECK(mapped() == (restart < MAPPINGS_MAX ? restart : MAPPINGS_MAX));
    }
    test_outrun();
}
