/* SPDX-License-Identifier: Apache-2.0 */
/* getnameinfo: overlay addresses have names, which libc cannot know. */
#include <netdb.h>

#include "addr.h"
#include "entry.h"
#include "libc.h"
#include "mem.h"
#include "nodes.h"

/* An address without a name: in figures at once, not after a resolver's timeout. */
static int unnamed(const void *sa, socklen_t len, char *host, socklen_t host_room, char *service,
                   socklen_t service_room, int flags) {
    if (flags & NI_NAMEREQD)
        return EAI_NONAME;
    return libc()->getnameinfo(sa, len, host, host_room, service, service_room,
                               flags | NI_NUMERICHOST);
}

ENTRY(int, getnameinfo,
      (const void *sa, socklen_t len, char *host, socklen_t host_room, char *service,
       socklen_t service_room, int flags)) {
    char name[BOXER_NAME_LEN];
    struct endpoint e;
    union address a;
    if (!libc()->getnameinfo)
        return EAI_FAIL;
    if (!host || !host_room || (flags & NI_NUMERICHOST) || !address_from_guest(&a, sa, len) ||
        !endpoint_of(&a, len, &e) || !nodes_reverse(e.ip, name))
        return libc()->getnameinfo(sa, len, host, host_room, service, service_room, flags);
    if (!name[0])
        return unnamed(sa, len, host, host_room, service, service_room, flags);
    if (service && service_room) {
        int error = libc()->getnameinfo(sa, len, NULL, 0, service, service_room, flags);
        if (error)
            return error;
    }
    if (strlen(name) >= host_room)
        return EAI_OVERFLOW;
    memcpy(host, name, strlen(name) + 1);
    return 0;
}
