/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exec family: what a guest starts is a guest too, also when it makes the
 * environment itself. Searching PATH and the rest of libc's work stays libc's.
 */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>

#include "entry.h"
#include "execenv.h"
#include "hooks.h"
#include "libc.h"
#include "sys.h"

long hook_execve(const char *path, char *const *argv, char *const *envp) {
    return WITH_EXECENV(long, envp, env, sys_execve(path, argv, env));
}

long hook_execveat(int dir, const char *path, char *const *argv, char *const *envp, int flags) {
    return WITH_EXECENV(long, envp, env, sys_execveat(dir, path, argv, env, flags));
}

static int run(const char *path, char *const *argv, char *const *envp) {
    return libc_result(hook_execve(path, argv, envp));
}

static int run_search(const char *file, char *const *argv, char *const *envp) {
    if (!libc()->execvpe)
        return libc_result(-ENOSYS);
    return WITH_EXECENV(int, envp, env, libc()->execvpe(file, argv, env));
}

ENTRY(int, execve, (const char *path, char *const *argv, char *const *envp)) {
    return run(path, argv, envp);
}

ENTRY(int, execv, (const char *path, char *const *argv)) {
    return run(path, argv, libc_environ());
}

ENTRY(int, execvp, (const char *file, char *const *argv)) {
    return run_search(file, argv, libc_environ());
}

ENTRY(int, execvpe, (const char *file, char *const *argv, char *const *envp)) {
    return run_search(file, argv, envp);
}

ENTRY(int, fexecve, (int fd, char *const *argv, char *const *envp)) {
    if (!libc()->fexecve)
        return libc_result(-ENOSYS);
    return WITH_EXECENV(int, envp, env, libc()->fexecve(fd, argv, env));
}

ENTRY(int, execveat, (int dir, const char *path, char *const *argv, char *const *envp, int flags)) {
    return libc_result(hook_execveat(dir, path, argv, envp, flags));
}

/* Arguments after the first, up to and with the NULL; INT_MAX when too many. */
static size_t count_arguments(va_list list) {
    size_t n = 1;
    while (n < INT_MAX && va_arg(list, char *))
        n++;
    return n;
}

static void collect_arguments(char **argv, size_t n, const char *first, va_list list) {
    argv[0] = (char *)first;
    for (size_t i = 1; i <= n; i++)
        argv[i] = va_arg(list, char *);
}

/* Lays the arguments of execl* out as an array on the caller's stack. */
#define COLLECT(argv, first)                                    \
    va_list list;                                               \
    size_t count;                                               \
    va_start(list, first);                                      \
    count = first ? count_arguments(list) : 0;                  \
    va_end(list);                                               \
    if (count == INT_MAX)                                       \
        return libc_result(-E2BIG);                             \
    char **argv = __builtin_alloca((count + 1) * sizeof *argv); \
    va_start(list, first);                                      \
    collect_arguments(argv, count, first, list)

ENTRY(int, execl, (const char *path, const char *first, ...)) {
    COLLECT(argv, first);
    va_end(list);
    return run(path, argv, libc_environ());
}

ENTRY(int, execlp, (const char *file, const char *first, ...)) {
    COLLECT(argv, first);
    va_end(list);
    return run_search(file, argv, libc_environ());
}

ENTRY(int, execle, (const char *path, const char *first, ...)) {
    char *const *envp;
    COLLECT(argv, first);
    envp = va_arg(list, char *const *);
    va_end(list);
    return run(path, argv, envp);
}

ENTRY(int, posix_spawn,
      (pid_t * pid, const char *path, const posix_spawn_file_actions_t *actions,
       const posix_spawnattr_t *attributes, char *const *argv, char *const *envp)) {
    if (!libc()->posix_spawn)
        return ENOSYS;
    return WITH_EXECENV(int, envp, env,
                        libc()->posix_spawn(pid, path, actions, attributes, argv, env));
}

ENTRY(int, posix_spawnp,
      (pid_t * pid, const char *file, const posix_spawn_file_actions_t *actions,
       const posix_spawnattr_t *attributes, char *const *argv, char *const *envp)) {
    if (!libc()->posix_spawnp)
        return ENOSYS;
    return WITH_EXECENV(int, envp, env,
                        libc()->posix_spawnp(pid, file, actions, attributes, argv, env));
}
