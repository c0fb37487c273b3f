/* SPDX-License-Identifier: Apache-2.0 */
/* bind: the guest's own overlay address is its underlay address to the kernel. */
#include <errno.h>

#include "addr.h"
#include "hooks.h"
#include "shared.h"
#include "sys.h"
#include "view.h"

long hook_bind(int fd, const void *sa, socklen_t len) {
    struct table_info info;
    struct endpoint e;
    union address a;
    if (shared_own())
        return shared_bind(fd, sa, len);
    if (!view_info(&info) || !address_from_guest(&a, sa, len) || !endpoint_of(&a, len, &e) ||
        !in_overlay(&info, e.ip) || !is_tcp(fd))
        return sys_bind(fd, sa, len);
    if (e.ip != info.header.own_overlay)
        return -EADDRNOTAVAIL;
    address_set_ip(&a, info.header.own_underlay);
    return sys_bind(fd, &a, len);
}
