/* SPDX-License-Identifier: Apache-2.0 */
/*
 * system and popen: libc starts the shell itself, with environ as it is. Where
 * a guest has thrown the preload out of environ, that is another list for as
 * long as the call takes.
 */
#include <errno.h>
#include <sys/mman.h>

#include "entry.h"
#include "execenv.h"
#include "libc.h"
#include "sys.h"

/*
 * Never unmapped, for other threads may be reading environ; used again for the
 * next call, so that calling often does not take memory.
 */
struct list {
    size_t room;
    char bytes[] __attribute__((aligned(16)));
};

static struct list *spare;

static struct list *take_list(size_t size) {
    struct list *l = __atomic_exchange_n(&spare, NULL, __ATOMIC_ACQUIRE);
    if (l && l->room >= size)
        return l;
    size += sizeof *l;
    l = execenv_map(size);
    if (l)
        l->room = size - sizeof *l;
    return l;
}

struct swap {
    char **before, **during;
    struct list *list;
};

static void swap_in(struct swap *s) {
    size_t size;
    s->before = libc_environ();
    s->list = NULL;
    size = execenv_size(s->before);
    if (!size || !(s->list = take_list(size)))
        return;
    s->during = (char **)(uintptr_t)execenv_build(s->before, s->list->bytes);
    libc_set_environ(s->during);
}

/* What another thread made of environ meanwhile stays, and so does our part of it. */
static void swap_out(struct swap *s) {
    if (!s->list || libc_environ() != s->during)
        return;
    libc_set_environ(s->before);
    __atomic_store_n(&spare, s->list, __ATOMIC_RELEASE);
}

ENTRY(int, system, (const char *command)) {
    struct swap s;
    int result;
    if (!libc()->system)
        return (int)libc_result(-ENOSYS);
    swap_in(&s);
    result = libc()->system(command);
    swap_out(&s);
    return result;
}

ENTRY(void *, popen, (const char *command, const char *mode)) {
    struct swap s;
    void *result;
    if (!libc()->popen) {
        libc_set_errno(ENOSYS);
        return NULL;
    }
    swap_in(&s);
    result = libc()->popen(command, mode);
    swap_out(&s);
    return result;
}
