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
    table->own_id = ++generation;
    *fd = memfd_create("unit-view", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(*fd >= 0 && write(*fd, table, BOXER_TABLE_SIZE) == BOXER_TABLE_SIZE);
    CHECK(fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
    free(table);
    r->error = 0;
    return 0;
}

#include "../view.c"

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

void test_view(void) {
    now = 200 * SECOND; /* the golden heartbeat is long ago: each look is a restart */
    for (uint32_t restart = 1; restart <= 3 * MAPPINGS_MAX; restart++) {
        struct table_info info;
        now += 2 * RETRY_INTERVAL;
        CHECK(view_info(&info));
        CHECK(info.header.own_id == restart);
        CHECK(mapped() == (restart < MAPPINGS_MAX ? restart : MAPPINGS_MAX));
    }
}
