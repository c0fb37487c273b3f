/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An exported entry: the C function has a name of its own and takes libc's
 * name only as its symbol, so that libc's prototypes (nonnull attributes,
 * transparent unions, fortified variants) cannot get in the way.
 */
#ifndef BOXER_ENTRY_H
#define BOXER_ENTRY_H

#define ENTRY(result, name, arguments)                                                   \
    __attribute__((visibility("default"))) result entry_##name arguments __asm__(#name); \
    result entry_##name arguments

#endif
