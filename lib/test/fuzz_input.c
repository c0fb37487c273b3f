/* SPDX-License-Identifier: Apache-2.0 */
/* Inputs as changes of the golden table. */
#include "fuzz.h"

#include "../table.h"

enum { CHANGES_MAX = 512, WORDS = BOXER_TABLE_SIZE / 4 };

static uint32_t *table;
static struct { uint32_t where, was; } changes[CHANGES_MAX];
static unsigned changed;

void *fuzz_golden(const char *name, size_t size) {
    char path[4096], *data = calloc(1, size);
    FILE *f;
    snprintf(path, sizeof path, "%s/%s", GOLDEN, name);
    f = fopen(path, "rb");
    CHECK(f && data && fread(data, 1, size, f) > 0);
    fclose(f);
    return data;
}

void *fuzz_table(struct input *in) {
    if (!table)
        table = fuzz_golden("table.bin", BOXER_TABLE_SIZE);
    while (in->left && changed < CHANGES_MAX) {
        uint32_t where = take(in, 4) % WORDS;
        changes[changed].where = where;
        changes[changed++].was = table[where];
        table[where] = take(in, 4);
        if (where == offsetof(struct boxer_table, seq) / 4)
            table[where] &= ~1u;
    }
    return table;
}

void fuzz_restore(void) {
    while (changed) {
        changed--;
        table[changes[changed].where] = changes[changed].was;
    }
}
