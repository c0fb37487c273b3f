/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of parts compiled directly, with sanitizers and under valgrind. */
#ifndef BOXER_UNIT_H
#define BOXER_UNIT_H

#include <stddef.h>

#include "check.h"

/* The whole golden file; the caller frees it. */
void *unit_load(const char *name, size_t *size);

/* The golden table in memory of a table's size; the caller frees it. */
void *unit_table(void);

void test_table(void);
void test_ipc(void);
void test_view(void);
void test_hostile_tables(unsigned rounds);
void test_hostile_frames(unsigned rounds);

#endif
