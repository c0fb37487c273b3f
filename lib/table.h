/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node table: one shared memory that the supervisor writes and every
 * process monitor maps read-only. All integers are little-endian; IPv4
 * addresses and masks are integers in host order (100.80.0.1 = 0x64500001).
 *
 * A writer makes seq odd, changes the table, makes seq even; a reader copies
 * what it needs and starts again if seq was odd or has changed. Every offset
 * and count is checked against BOXER_TABLE_SIZE before use: the table is
 * trusted no more than a message.
 *
 * The same layout is written by runtime/table; both sides are tested against
 * lib/test/golden/table.bin.
 */
#ifndef BOXER_TABLE_H
#define BOXER_TABLE_H

#include <stdint.h>

#define BOXER_TABLE_MAGIC 0x3130424154584f42ULL /* "BOXTAB01" */
#define BOXER_TABLE_VERSION 1u
#define BOXER_TABLE_SIZE (1280u * 1024u)
#define BOXER_TABLE_MEMBERS 4096u
#define BOXER_TABLE_NAMES 12288u
#define BOXER_TABLE_ADDRS 16384u
#define BOXER_NAME_LEN 64u /* with the terminating NUL */

enum boxer_transport {
    BOXER_TRANSPORT_NONE = 0,
    BOXER_TRANSPORT_NATIVE = 1, /* translate the address, ask nobody */
    BOXER_TRANSPORT_DIRECT = 2, /* ask the supervisor: preface */
    BOXER_TRANSPORT_HOLD = 3,   /* ask the supervisor: hold and release */
};

struct boxer_table {
    uint64_t magic;
    uint32_t version;
    uint32_t size;
    uint32_t seq;
    uint32_t flags;
    uint64_t heartbeat_ns; /* CLOCK_MONOTONIC of the last sign of life */
    uint32_t cidr_ip;
    uint32_t cidr_mask;
    uint32_t own_overlay;
    uint32_t own_underlay;
    uint32_t own_id;
    uint16_t overlay_port;
    uint16_t reserved0;
    uint32_t member_count;
    uint32_t name_count;
    uint32_t addr_count;
    uint32_t native_count;
    uint32_t member_off;
    uint32_t name_off;
    uint32_t addr_off;
    uint32_t native_off;
    uint8_t reserved1[40];
    char own_name[BOXER_NAME_LEN];
    char network[BOXER_NAME_LEN];
};

/* Sorted by overlay, ascending. */
struct boxer_member {
    uint32_t overlay;
    uint32_t underlay;
    uint32_t id;
    uint16_t port;
    uint8_t transport; /* enum boxer_transport */
    uint8_t state;
    uint64_t reserved;
};

/* Members reached natively, sorted by underlay: translates accepted peers. */
struct boxer_native {
    uint32_t underlay;
    uint32_t overlay;
};

/* Sorted by name (bytewise, lower case, NUL-padded); addrs[first .. first+count). */
struct boxer_name {
    char name[BOXER_NAME_LEN];
    uint32_t first;
    uint32_t count;
};

_Static_assert(sizeof(struct boxer_table) == 256, "table header");
_Static_assert(sizeof(struct boxer_member) == 24, "table member");
_Static_assert(sizeof(struct boxer_native) == 8, "table native index");
_Static_assert(sizeof(struct boxer_name) == 72, "table name");

#endif
