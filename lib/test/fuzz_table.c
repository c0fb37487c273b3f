/* SPDX-License-Identifier: Apache-2.0 */
/* Every query of the node table over tables that hold anything. */
#include "fuzz.h"

#include "../tableread.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input in = {data, size};
    uint32_t overlay = take(&in, 4), underlay = take(&in, 4), turn = take(&in, 4);
    uint32_t max = take(&in, 1) % 9, addrs[8], count, found;
    char name[BOXER_NAME_LEN] = {0}, reversed[BOXER_NAME_LEN];
    struct boxer_member m;
    struct table_info info;
    int result;
    for (unsigned i = 0, n = take(&in, 1) % BOXER_NAME_LEN; i < n; i++)
        name[i] = (char)take(&in, 1);
    void *table = fuzz_table(&in);
    result = table_info(table, &info);
    CHECK(result == TABLE_UNUSABLE || result == TABLE_HIT);
    table_heartbeat(table);
    if (table_member(table, &info, overlay, &m) == TABLE_HIT)
        CHECK(m.overlay == overlay);
    table_native(table, &info, underlay, &found);
    result = table_name(table, &info, name, turn, addrs, max, &count);
    CHECK(count <= max && (result == TABLE_HIT || count == 0));
    if (table_reverse(table, &info, overlay, reversed) == TABLE_HIT)
        CHECK(memchr(reversed, 0, sizeof reversed));
    fuzz_restore();
    return 0;
}
