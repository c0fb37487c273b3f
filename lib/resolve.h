/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BOXER_RESOLVE_H
#define BOXER_RESOLVE_H

struct symbol {
    const char *name;
    void *address; /* NULL: not found (yet) */
};

/*
 * Finds the definition that each name has after ourselves in the order of
 * loading, as dlsym(RTLD_NEXT) would. dlsym itself is no help: it is versioned,
 * has moved between libraries, and RTLD_NEXT looks at its caller.
 */
void resolve_next(struct symbol *symbols, unsigned count);

#endif
