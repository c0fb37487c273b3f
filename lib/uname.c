/* SPDX-License-Identifier: Apache-2.0 */
/* uname and gethostname: the node's name is the host's. */
#include <errno.h>

#include "entry.h"
#include "hooks.h"
#include "libc.h"
#include "mem.h"
#include "sys.h"
#include "view.h"

long hook_uname(struct utsname *u) {
    struct table_info info;
    long result = sys_uname(u);
    if (result == 0 && view_info(&info) && info.header.own_name[0]) {
        memset(u->nodename, 0, sizeof u->nodename);
        memcpy(u->nodename, info.header.own_name, strlen(info.header.own_name));
    }
    return result;
}

/*
 * glibc says ENAMETOOLONG when the name and its NUL do not fit, after writing
 * what fits; musl cuts the name short and ends it.
 */
static long hook_gethostname(char *name, size_t room) {
    struct utsname u;
    size_t need, n;
    long error = hook_uname(&u);
    if (error)
        return error;
    need = strlen(u.nodename) + 1;
    n = need < room ? need : room;
    memcpy(name, u.nodename, n);
    if (need <= room)
        return 0;
    if (libc()->gnu_get_libc_version)
        return -ENAMETOOLONG;
    if (n)
        name[n - 1] = 0;
    return 0;
}

ENTRY(int, uname, (struct utsname * u)) {
    return libc_result(hook_uname(u));
}

ENTRY(int, gethostname, (char *name, size_t room)) {
    return libc_result(hook_gethostname(name, room));
}

/* The fortified one; a caller that lies about its buffer is stopped, as in libc. */
ENTRY(int, __gethostname_chk, (char *name, size_t room, size_t real)) {
    if (room > real)
        __builtin_trap();
    return libc_result(hook_gethostname(name, room));
}
