/* SPDX-License-Identifier: Apache-2.0 */
/* Capturing the BOXER_* variables, early in a constructor or at the first use. */
#include "env.h"

#include <fcntl.h>

#include "libc.h"
#include "mem.h"
#include "sys.h"

enum state { UNREAD = 0, READING = 1, GUEST = 2, NO_GUEST = 3 };

static struct environment captured;
static char storage[ENV_BYTES];
static unsigned used;
static int state;

static int hex(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* 32 hex digits and then end. */
static int parse_token(const char *s, uint8_t token[BOXER_TOKEN_LEN], char end) {
    for (unsigned i = 0; i < BOXER_TOKEN_LEN; i++) {
        int high = hex(s[2 * i]);
        int low = high < 0 ? -1 : hex(s[2 * i + 1]);
        if (low < 0)
            return 0;
        token[i] = (uint8_t)(high << 4 | low);
    }
    return s[2 * BOXER_TOKEN_LEN] == end;
}

int identity_parse(const char *value, struct identity *id) {
    unsigned n = 0;
    while (value[n] && value[n] != '/')
        n++;
    if (n == 0 || n > ENV_NAME_LEN || value[n] != '/')
        return 0;
    memcpy(id->name, value, n);
    id->name_len = n;
    value += n + 1;
    return parse_token(value, id->monitor, '/') &&
           parse_token(value + 2 * BOXER_TOKEN_LEN + 1, id->supervisor, 0);
}

/* A decimal number up to max that ends with end; *at is behind it then. -1: not one. */
static int number(const char **at, int max, char end) {
    const char *s = *at;
    int value = 0;
    while (*s >= '0' && *s <= '9' && value <= max)
        value = value * 10 + (*s++ - '0');
    if (s == *at || value > max || *s != end)
        return -1;
    *at = s + 1;
    return value;
}

int cidr_parse(const char *value, uint32_t *ip, uint32_t *mask) {
    uint32_t address = 0;
    int bits;
    for (int i = 0; i < 4; i++) {
        int part = number(&value, 255, i < 3 ? '.' : '/');
        if (part < 0)
            return 0;
        address = address << 8 | (uint32_t)part;
    }
    bits = number(&value, 32, 0);
    if (bits < 1)
        return 0;
    *mask = ~(uint32_t)0 << (32 - bits);
    *ip = address & *mask;
    return 1;
}

static void capture_one(const char *variable) {
    size_t size = strlen(variable) + 1;
    if (captured.count == ENV_VARIABLES || size > ENV_BYTES - used)
        return;
    captured.variables[captured.count++] = memcpy(storage + used, variable, size);
    used += (unsigned)size;
}

static void capture_list(char **envp) {
    for (; envp && *envp; envp++)
        if (has_prefix(*envp, "BOXER_"))
            capture_one(*envp);
}

/* The kernel's copy, in pieces; used only when there is no environ yet. */
static void capture_proc(void) {
    char line[1024], block[1024];
    size_t length = 0;
    long n, fd = sys_openat(AT_FDCWD, "/proc/self/environ", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    while ((n = sys_read((int)fd, block, sizeof block)) > 0) {
        for (long i = 0; i < n; i++) {
            if (length < sizeof line)
                line[length++] = block[i];
            if (block[i])
                continue;
            if (line[length - 1] == 0 && has_prefix(line, "BOXER_"))
                capture_one(line);
            length = 0;
        }
    }
    sys_close((int)fd);
}

static int understand(void) {
    uint32_t mask;
    int identified = 0;
    for (unsigned i = 0; i < captured.count; i++) {
        const char *v = captured.variables[i];
        if (has_prefix(v, "BOXER_LIB="))
            captured.library = v + strlen("BOXER_LIB=");
        else if (has_prefix(v, "BOXER_IPC="))
            identified = identity_parse(v + strlen("BOXER_IPC="), &captured.identity);
        else if (has_prefix(v, "BOXER_CIDR="))
            cidr_parse(v + strlen("BOXER_CIDR="), &captured.cidr_ip, &captured.cidr_mask);
        else if (has_prefix(v, "BOXER_LOOPBACK="))
            cidr_parse(v + strlen("BOXER_LOOPBACK="), &captured.loopback, &mask);
    }
    return identified && captured.library;
}

static void capture(char **envp) {
    int unread = UNREAD;
    if (!__atomic_compare_exchange_n(&state, &unread, READING, 0, __ATOMIC_ACQUIRE,
                                     __ATOMIC_RELAXED))
        return;
    if (envp)
        capture_list(envp);
    else
        capture_proc();
    __atomic_store_n(&state, understand() ? GUEST : NO_GUEST, __ATOMIC_RELEASE);
}

const struct environment *environment(void) {
    int now = __atomic_load_n(&state, __ATOMIC_ACQUIRE);
    if (now == UNREAD)
        capture(libc_environ());
    /* Another thread is at it. Bounded, for this may be a signal handler above it. */
    for (int i = 0; i < 100000 && (now = __atomic_load_n(&state, __ATOMIC_ACQUIRE)) < GUEST; i++)
        boxer_pause();
    return now == GUEST ? &captured : NULL;
}

/*
 * glibc calls constructors with main's arguments and may do so before it has
 * set environ; musl passes nothing. Where the arguments form a main's, use them.
 */
__attribute__((constructor)) static void capture_early(int argc, char **argv, char **envp) {
    uintptr_t after = (uintptr_t)argv + ((uintptr_t)(unsigned)argc + 1) * sizeof(char *);
    if (argc >= 0 && argv && (uintptr_t)envp == after)
        capture(envp);
    else if (libc_environ())
        capture(libc_environ());
}
