/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BOXER_CLOCK_H
#define BOXER_CLOCK_H

#include <stdint.h>

#define MILLISECOND INT64_C(1000000)
#define SECOND INT64_C(1000000000)

/* CLOCK_MONOTONIC in nanoseconds. */
int64_t clock_now(void);

#endif
