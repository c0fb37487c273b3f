/* SPDX-License-Identifier: Apache-2.0 */
/* Names of nodes to addresses and back, for all of libc's ways to ask. */
#ifndef BOXER_NODES_H
#define BOXER_NODES_H

#include <stdint.h>

#include "table.h"

enum { NODE_ADDRESSES = 64 };

struct node_addresses {
    uint32_t count;
    uint32_t ip[NODE_ADDRESSES]; /* host order, rotated */
    char name[BOXER_NAME_LEN];   /* as the table has it */
};

/* 1 when name is a node or a service of this network. */
int nodes_lookup(const char *name, struct node_addresses *found);

/* Whether ip belongs to the network; name is "" when nobody holds it. */
int nodes_reverse(uint32_t ip, char name[BOXER_NAME_LEN]);

/* The reverse for a binary address as gethostbyaddr gets it. */
int nodes_reverse_binary(const void *address, unsigned len, int family, char name[BOXER_NAME_LEN]);

#endif
