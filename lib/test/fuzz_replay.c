/* SPDX-License-Identifier: Apache-2.0 */
/* Runs one fuzz target over the files named: fuzz_replay FILE... */
#include "fuzz.h"

int main(int argc, char **argv) {
    static uint8_t data[1 << 16];
    for (int i = 1; i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        size_t size;
        uint8_t *exact;
        CHECK(f);
        size = fread(data, 1, sizeof data, f);
        fclose(f);
        exact = malloc(size); /* so that reading past its end is noticed */
        CHECK(exact || !size);
        memcpy(exact, data, size);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
    }
    printf("%s: %d inputs replayed\n", argv[0], argc - 1);
    return argc < 2;
}
