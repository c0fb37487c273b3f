/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BOXER_NAMES_H
#define BOXER_NAMES_H

#include <netdb.h>

/* getaddrinfo for a name of the network: 1 and its result in *error. 0: not ours. */
int getaddrinfo_own(const char *node, const char *service, const struct addrinfo *hints,
                    struct addrinfo **result, int *error);

#endif
