/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzz targets share: fuzz_table.c, fuzz_names.c, fuzz_ipc.c. Each has
 * libFuzzer's entry; fuzz_replay.c runs the kept inputs without libFuzzer.
 */
#ifndef BOXER_FUZZ_H
#define BOXER_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The rest of an input; what is taken beyond its end is zero. */
struct input {
    const uint8_t *at;
    size_t left;
};

static inline uint32_t take(struct input *in, unsigned bytes) {
    uint32_t value = 0;
    for (unsigned i = 0; i < bytes && in->left; i++, in->left--)
        value |= (uint32_t)*in->at++ << 8 * i;
    return value;
}

/* A golden file, zeros after it up to size. */
void *fuzz_golden(const char *name, size_t size);

/*
 * The golden table with the words changed that the input names (position and
 * value, 4 bytes each); fuzz_restore puts them back. seq stays even, for an
 * odd one only costs time.
 */
void *fuzz_table(struct input *in);
void fuzz_restore(void);

#endif
