/* SPDX-License-Identifier: Apache-2.0 */
/* Keeping LD_PRELOAD, BOXER_LIB, BOXER_IPC and the rest in an environment. */
#include "execenv.h"

#include <sys/mman.h>

#include "addr.h"
#include "env.h"
#include "mem.h"
#include "sys.h"

#define PRELOAD "LD_PRELOAD="

static size_t key_length(const char *variable) {
    size_t n = 0;
    while (variable[n] && variable[n] != '=')
        n++;
    return n;
}

static int same_key(const char *a, const char *b) {
    size_t n = key_length(a);
    return n == key_length(b) && memcmp(a, b, n) == 0;
}

/* The two that lead to the supervisor; a guest may change all others. */
static int is_fixed(const char *variable) {
    return has_prefix(variable, "BOXER_LIB=") || has_prefix(variable, "BOXER_IPC=");
}

/* Whether value (of LD_PRELOAD) begins with the library, as a whole item. */
static int leads(const char *value, const char *library) {
    size_t n = strlen(library);
    return has_prefix(value, library) && (!value[n] || value[n] == ':' || value[n] == ' ');
}

static size_t count(char *const *envp) {
    size_t n = 0;
    while (envp && envp[n])
        n++;
    return n;
}

static const char *find(char *const *envp, const char *variable) {
    for (; envp && *envp; envp++)
        if (same_key(*envp, variable))
            return *envp;
    return NULL;
}

static int complete(const struct environment *e, char *const *envp) {
    const char *preload = find(envp, PRELOAD);
    if (!preload || !leads(preload + strlen(PRELOAD), e->library))
        return 0;
    for (unsigned i = 0; i < e->count; i++) {
        const char *there = find(envp, e->variables[i]);
        if (!there || (is_fixed(there) && !same_string(there, e->variables[i])))
            return 0;
    }
    return 1;
}

size_t execenv_size(char *const *envp) {
    const struct environment *e = environment();
    const char *preload;
    /* A bad pointer is the kernel's to refuse. */
    if (!e || (envp && !readable(envp, sizeof *envp)) || complete(e, envp))
        return 0;
    preload = find(envp, PRELOAD);
    return (count(envp) + e->count + 2) * sizeof(char *) + strlen(PRELOAD) + strlen(e->library) +
           2 + (preload ? strlen(preload) : 0);
}

/* LD_PRELOAD with the library first and what was there after it. */
static char *write_preload(char *at, const char *library, const char *old) {
    size_t n = strlen(library);
    memcpy(at, PRELOAD, strlen(PRELOAD));
    memcpy(at + strlen(PRELOAD), library, n + 1);
    if (old && old[strlen(PRELOAD)] && !leads(old + strlen(PRELOAD), library)) {
        at[strlen(PRELOAD) + n] = ':';
        memcpy(at + strlen(PRELOAD) + n + 1, old + strlen(PRELOAD),
               strlen(old + strlen(PRELOAD)) + 1);
    } else if (old && old[strlen(PRELOAD)]) {
        memcpy(at, old, strlen(old) + 1);
    }
    return at;
}

static const char *fixed_value(const struct environment *e, const char *variable) {
    for (unsigned i = 0; i < e->count && is_fixed(variable); i++)
        if (same_key(e->variables[i], variable))
            return e->variables[i];
    return variable;
}

char *const *execenv_build(char *const *envp, void *memory) {
    const struct environment *e = environment();
    size_t given = count(envp), n = 0;
    const char **out = memory;
    char *text = (char *)(out + given + e->count + 2);
    write_preload(text, e->library, find(envp, PRELOAD));
    if (!find(envp, PRELOAD))
        out[n++] = text;
    for (size_t i = 0; i < given; i++)
        out[n++] = same_key(envp[i], PRELOAD) ? text : fixed_value(e, envp[i]);
    for (unsigned i = 0; i < e->count; i++)
        if (!find(envp, e->variables[i]))
            out[n++] = e->variables[i];
    out[n] = NULL;
    return (char *const *)out;
}

void *execenv_map(size_t size) {
    long at = sys_mmap(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    return at < 0 && at > -4096 ? NULL : (void *)at;
}

void execenv_unmap(void *memory, size_t size) {
    if (memory)
        sys_munmap(memory, size);
}
