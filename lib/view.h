/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node table of this process: fetched when first needed, fetched again
 * when its writer shows no sign of life (a new supervisor has a new table).
 */
#ifndef BOXER_VIEW_H
#define BOXER_VIEW_H

#include "tableread.h"

/* The mapped table, or NULL: this is no guest, or nobody gave us one. */
const void *view(void);

/* view() with its header; NULL when there is none to work with. */
const void *view_info(struct table_info *info);

static inline int in_overlay(const struct table_info *info, uint32_t ip) {
    return (ip & info->header.cidr_mask) == info->header.cidr_ip;
}

#endif
