/* SPDX-License-Identifier: Apache-2.0 */
/* Looking functions up in the ELF hash tables of the loaded objects. */
#include "resolve.h"

#include <elf.h>
#include <link.h>
#include <stddef.h>
#include <stdint.h>

#include "mem.h"

/* Weak and without a version: the loader binds it under glibc and musl alike. */
extern int libc_dl_iterate_phdr(int (*callback)(struct dl_phdr_info *, size_t, void *),
                                void *context) __asm__("dl_iterate_phdr") __attribute__((weak));

struct object {
    const ElfW(Sym) * symbols;
    const char *strings;
    const uint16_t *versions;
    const uint32_t *gnu;
    const uint32_t *sysv;
    uintptr_t base;
};

struct search {
    struct symbol *symbols;
    unsigned count;
    int past_self;
};

/* glibc relocates the pointers of a dynamic section in place, musl does not. */
static const void *pointer_of(const struct dl_phdr_info *info, const ElfW(Dyn) * d) {
    uintptr_t p = d->d_un.d_ptr;
    return (const void *)(p < info->dlpi_addr ? p + info->dlpi_addr : p);
}

static int open_object(const struct dl_phdr_info *info, struct object *o) {
    const ElfW(Dyn) *d = NULL;
    for (unsigned i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
            d = (const void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    if (!d)
        return 0;
    memset(o, 0, sizeof *o);
    o->base = info->dlpi_addr;
    for (; d->d_tag != DT_NULL; d++) {
        if (d->d_tag == DT_SYMTAB)
            o->symbols = pointer_of(info, d);
        else if (d->d_tag == DT_STRTAB)
            o->strings = pointer_of(info, d);
        else if (d->d_tag == DT_VERSYM)
            o->versions = pointer_of(info, d);
        else if (d->d_tag == DT_GNU_HASH)
            o->gnu = pointer_of(info, d);
        else if (d->d_tag == DT_HASH)
            o->sysv = pointer_of(info, d);
    }
    return o->symbols && o->strings && (o->gnu || o->sysv);
}

/* A defined function under this name, in its default version. */
static void *accept_symbol(const struct object *o, uint32_t index, const char *name) {
    const ElfW(Sym) *s = &o->symbols[index];
    if (s->st_shndx == SHN_UNDEF || ELF64_ST_TYPE(s->st_info) != STT_FUNC)
        return NULL;
    if (o->versions && (o->versions[index] & 0x8000)) /* hidden: an older version */
        return NULL;
    return same_string(o->strings + s->st_name, name) ? (void *)(o->base + s->st_value) : NULL;
}

static uint32_t gnu_hash(const char *name) {
    uint32_t h = 5381;
    for (; *name; name++)
        h = h * 33 + (unsigned char)*name;
    return h;
}

static void *find_gnu(const struct object *o, const char *name) {
    uint32_t hash = gnu_hash(name);
    uint32_t buckets = o->gnu[0], first = o->gnu[1], words = o->gnu[2];
    const uint32_t *bucket = o->gnu + 4 + words * (sizeof(ElfW(Addr)) / sizeof(uint32_t));
    const uint32_t *chain = bucket + buckets;
    uint32_t i = buckets ? bucket[hash % buckets] : 0;
    if (i < first)
        return NULL;
    for (;; i++) {
        uint32_t h = chain[i - first];
        void *found = (h | 1) == (hash | 1) ? accept_symbol(o, i, name) : NULL;
        if (found || (h & 1))
            return found;
    }
}

static uint32_t sysv_hash(const char *name) {
    uint32_t h = 0;
    for (; *name; name++) {
        h = (h << 4) + (unsigned char)*name;
        h = (h ^ ((h & 0xf0000000u) >> 24)) & 0x0fffffffu;
    }
    return h;
}

static void *find_sysv(const struct object *o, const char *name) {
    uint32_t buckets = o->sysv[0];
    const uint32_t *bucket = o->sysv + 2, *chain = bucket + buckets;
    if (!buckets)
        return NULL;
    for (uint32_t i = bucket[sysv_hash(name) % buckets]; i; i = chain[i]) {
        void *found = accept_symbol(o, i, name);
        if (found)
            return found;
    }
    return NULL;
}

static int contains(const struct dl_phdr_info *info, uintptr_t address) {
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type == PT_LOAD && address - (info->dlpi_addr + p->p_vaddr) < p->p_memsz)
            return 1;
    }
    return 0;
}

static int visit(struct dl_phdr_info *info, size_t size, void *context) {
    struct search *s = context;
    struct object o;
    unsigned missing = 0;
    (void)size;
    if (!s->past_self) {
        s->past_self = contains(info, (uintptr_t)&resolve_next);
        return 0;
    }
    if (!open_object(info, &o))
        return 0;
    for (unsigned i = 0; i < s->count; i++) {
        struct symbol *y = &s->symbols[i];
        if (!y->address)
            y->address = o.gnu ? find_gnu(&o, y->name) : find_sysv(&o, y->name);
        missing += !y->address;
    }
    return missing == 0;
}

void resolve_next(struct symbol *symbols, unsigned count) {
    struct search s = {symbols, count, 0};
    if (libc_dl_iterate_phdr)
        libc_dl_iterate_phdr(visit, &s);
}
