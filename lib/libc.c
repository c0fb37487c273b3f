/* SPDX-License-Identifier: Apache-2.0 */
/* The few things asked of the guest's libc. */
#include "libc.h"

#include "mem.h"
#include "resolve.h"
#include "sys.h"

extern int *libc_errno_location(void) __asm__("__errno_location") __attribute__((weak));
extern char **libc_environment __asm__("environ") __attribute__((weak));

/* In the order of the members of struct libc, all of which are pointers. */
static const char *const names[] = {
    "connect",
    "accept4",
    "__h_errno_location",
    "gnu_get_libc_version",
    "getaddrinfo",
    "freeaddrinfo",
    "getnameinfo",
    "gethostbyname",
    "gethostbyname2",
    "gethostbyname_r",
    "gethostbyname2_r",
    "gethostbyaddr",
    "gethostbyaddr_r",
    "execvpe",
    "fexecve",
    "posix_spawn",
    "posix_spawnp",
};

enum { COUNT = sizeof names / sizeof names[0] };
_Static_assert(sizeof(struct libc) == COUNT * sizeof(void *), "one name for each member");

/* Threads that come here first at the same time all write the same values. */
const struct libc *libc(void) {
    static struct libc table;
    static int ready;
    if (!__atomic_load_n(&ready, __ATOMIC_ACQUIRE)) {
        struct symbol symbols[COUNT];
        for (unsigned i = 0; i < COUNT; i++)
            symbols[i] = (struct symbol){names[i], NULL};
        resolve_next(symbols, COUNT);
        for (unsigned i = 0; i < COUNT; i++)
            __atomic_store_n((void **)&table + i, symbols[i].address, __ATOMIC_RELAXED);
        __atomic_store_n(&ready, 1, __ATOMIC_RELEASE);
    }
    return &table;
}

int libc_errno(void) {
    return libc_errno_location ? *libc_errno_location() : 0;
}

void libc_set_errno(int error) {
    if (libc_errno_location)
        *libc_errno_location() = error;
}

int libc_result(long result) {
    if (result >= 0)
        return (int)result;
    libc_set_errno((int)-result);
    return -1;
}

char **libc_environ(void) {
    return &libc_environment ? libc_environment : NULL;
}

/* Takes the error out of errno, so that a later success leaves errno alone. */
static long without_errno(int result, int saved) {
    long error = result < 0 ? -libc_errno() : result;
    libc_set_errno(saved);
    return error;
}

long kernel_connect(int fd, const void *sa, socklen_t len) {
    int saved = libc_errno();
    if (!libc()->connect || !libc_errno_location)
        return sys_connect(fd, sa, len);
    return without_errno(libc()->connect(fd, sa, len), saved);
}

long kernel_accept4(int fd, void *sa, socklen_t *len, int flags) {
    int saved = libc_errno();
    if (!libc()->accept4 || !libc_errno_location)
        return sys_accept4(fd, sa, len, flags);
    return without_errno(libc()->accept4(fd, sa, len, flags), saved);
}
