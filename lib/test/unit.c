/* SPDX-License-Identifier: Apache-2.0 */
/* unit GOLDEN-DIRECTORY [ROUNDS] */
#include "unit.h"

#include "../table.h"

static const char *golden;

void *unit_load(const char *name, size_t *size) {
    char path[4096];
    void *data = malloc(BOXER_TABLE_SIZE);
    FILE *f;
    snprintf(path, sizeof path, "%s/%s", golden, name);
    f = fopen(path, "rb");
    CHECK(f && data);
    *size = fread(data, 1, BOXER_TABLE_SIZE, f);
    fclose(f);
    return data;
}

void *unit_table(void) {
    size_t size;
    char *table = unit_load("table.bin", &size);
    memset(table + size, 0, BOXER_TABLE_SIZE - size);
    return table;
}

int main(int argc, char **argv) {
    unsigned rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 3000;
    CHECK(argc > 1);
    golden = argv[1];
    test_table();
    test_ipc();
    test_view();
    test_hostile_tables(rounds);
    test_hostile_frames(rounds);
    printf("unit tests passed\n");
    return 0;
}
