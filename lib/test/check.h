/* SPDX-License-Identifier: Apache-2.0 */
/* The whole test harness: a failed CHECK says where and ends the program. */
#ifndef BOXER_CHECK_H
#define BOXER_CHECK_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s: failed: %s (errno %d %s)\n", __FILE__, __LINE__, __func__, \
                    #condition, errno, strerror(errno));                                           \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* The call fails with this errno. */
#define CHECK_ERRNO(call, wanted)                                                               \
    do {                                                                                        \
        errno = 0;                                                                              \
        long result_ = (long)(call);                                                            \
        if (result_ != -1 || errno != (wanted)) {                                               \
            fprintf(stderr, "%s:%d: %s: %s gave %ld with errno %d (%s), wanted %s\n", __FILE__, \
                    __LINE__, __func__, #call, result_, errno, strerror(errno), #wanted);       \
            exit(1);                                                                            \
        }                                                                                       \
    } while (0)

#endif
