/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the supervisor told this process in its environment, copied once at
 * the start: guests overwrite their environment (setproctitle) or drop it.
 */
#ifndef BOXER_ENV_H
#define BOXER_ENV_H

#include <stddef.h>
#include <stdint.h>

#include "wire.h"

enum { ENV_VARIABLES = 48, ENV_BYTES = 8192, ENV_NAME_LEN = 107 };

/* BOXER_IPC taken apart. */
struct identity {
    char name[ENV_NAME_LEN]; /* abstract: without the leading NUL */
    unsigned name_len;
    uint8_t monitor[BOXER_TOKEN_LEN];
    uint8_t supervisor[BOXER_TOKEN_LEN];
};

struct environment {
    const char *library; /* value of BOXER_LIB */
    struct identity identity;
    uint32_t cidr_ip, cidr_mask; /* BOXER_CIDR; no mask: not told */
    uint32_t loopback;           /* BOXER_LOOPBACK, see shared.h; 0: not told */
    unsigned count;
    const char *variables[ENV_VARIABLES]; /* BOXER_*=..., as found */
};

int identity_parse(const char *value, struct identity *id);
int cidr_parse(const char *value, uint32_t *ip, uint32_t *mask);

/* NULL when this process is no guest. */
const struct environment *environment(void);

#endif
