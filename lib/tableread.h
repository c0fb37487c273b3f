/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queries of a mapped node table. Every query copies and checks the header,
 * and gives it back in info. The memory may hold anything and may change at
 * any time; only its size (BOXER_TABLE_SIZE) is given.
 */
#ifndef BOXER_TABLEREAD_H
#define BOXER_TABLEREAD_H

#include "table.h"

struct table_info {
    struct boxer_table header;
};

enum {
    TABLE_UNUSABLE = -1, /* nonsense, or its writer died writing */
    TABLE_MISS = 0,
    TABLE_HIT = 1,
};

int table_info(const void *base, struct table_info *info);
uint64_t table_heartbeat(const void *base);
int table_member(const void *base, struct table_info *info, uint32_t overlay,
                 struct boxer_member *m);
int table_native(const void *base, struct table_info *info, uint32_t underlay, uint32_t *overlay);

/* name: lower case, padded with NULs. turn rotates the order of the answer. */
int table_name(const void *base, struct table_info *info, const char name[BOXER_NAME_LEN],
               uint32_t turn, uint32_t *addrs, uint32_t max, uint32_t *count);
int table_reverse(const void *base, struct table_info *info, uint32_t addr,
                  char name[BOXER_NAME_LEN]);

#endif
