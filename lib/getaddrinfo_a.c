/* SPDX-License-Identifier: Apache-2.0 */
/*
 * getaddrinfo_a: names of the network are answered at once, for that takes no
 * waiting; the rest of the list, and telling the caller, is libc's.
 */
#include <netdb.h>
#include <signal.h>

#include "addr.h"
#include "entry.h"
#include "libc.h"
#include "names.h"

enum { LIST_MAX = 1024 };

/* An entry that is answered becomes NULL, which libc passes over. */
static int answer_own(struct gaicb **rest, struct gaicb **list, int count) {
    int answered = 0;
    for (int i = 0; i < count; i++) {
        struct gaicb *g = list[i];
        int error;
        rest[i] = g;
        if (!g || !getaddrinfo_own(g->ar_name, g->ar_service, g->ar_request, &g->ar_result, &error))
            continue;
        g->__return = error;
        rest[i] = NULL;
        answered++;
    }
    return answered;
}

ENTRY(int, getaddrinfo_a, (int mode, struct gaicb **list, int count, struct sigevent *event)) {
    struct gaicb *rest[LIST_MAX];
    if (!libc()->getaddrinfo_a)
        return EAI_SYSTEM;
    if (count < 0 || count > LIST_MAX || (mode != GAI_WAIT && mode != GAI_NOWAIT) || !list ||
        !answer_own(rest, list, count))
        return libc()->getaddrinfo_a(mode, list, count, event);
    return libc()->getaddrinfo_a(mode, rest, count, event);
}
