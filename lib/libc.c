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
    "sendto",
    "sendmsg",
    "sendmmsg",
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
    "system",
    "popen",
    "getaddrinfo_a",
};

enum { COUNT = sizeof names / sizeof names[0] };
_Static_assert(sizeof(struct libc) == COUNT * sizeof(void *), "one name for each member");

struct libc libc_found;

/* Threads that come here first at the same time all write the same values. */
const struct libc *libc(void) {
    static int ready;
    if (!__atomic_load_n(&ready, __ATOMIC_ACQUIRE)) {
        struct symbol symbols[COUNT];
        for (unsigned i = 0; i < COUNT; i++)
            symbols[i] = (struct symbol){names[i], NULL};
        resolve_next(symbols, COUNT);
        for (unsigned i = 0; i < COUNT; i++)
            __atomic_store_n((void **)&libc_found + i, symbols[i].address, __ATOMIC_RELAXED);
        __atomic_store_n(&ready, 1, __ATOMIC_RELEASE);
    }
    return &libc_found;
}

int libc_errno(void) {
    return libc_errno_location ? *libc_errno_location() : 0;
}

void libc_set_errno(int error) {
    if (libc_errno_location)
        *libc_errno_location() = error;
}

long libc_result(long result) {
    if (result >= 0)
        return result;
    libc_set_errno((int)-result);
    return -1;
}

char **libc_environ(void) {
    return &libc_environment ? libc_environment : NULL;
}

void libc_set_environ(char **envp) {
    if (&libc_environment)
        libc_environment = envp;
}

int libc_has_errno(void) {
    return libc_errno_location != NULL;
}

long libc_without_errno(long result, int saved) {
    long error = result < 0 ? -libc_errno() : result;
    libc_set_errno(saved);
    return error;
}

long kernel_connect(int fd, const void *sa, socklen_t len) {
    int saved = libc_errno();
    if (!libc()->connect || !libc_has_errno())
        return sys_connect(fd, sa, len);
    return libc_without_errno(libc()->connect(fd, sa, len), saved);
}

long kernel_accept4(int fd, void *sa, socklen_t *len, int flags) {
    int saved = libc_errno();
    if (!libc()->accept4 || !libc_has_errno())
        return sys_accept4(fd, sa, len, flags);
    return libc_without_errno(libc()->accept4(fd, sa, len, flags), saved);
}
