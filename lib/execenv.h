/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The environment for a program that a guest starts: the guest's own, with the
 * preload in it. Built in memory of the caller, because a vfork child shares
 * its parent's heap and may have no more than its stack.
 */
#ifndef BOXER_EXECENV_H
#define BOXER_EXECENV_H

#include <stddef.h>

/* Bytes that execenv_build needs for envp; 0: envp can be passed on as it is. */
size_t execenv_size(char *const *envp);

char *const *execenv_build(char *const *envp, void *memory);

/* Beyond this it is mapped instead of taken from the stack. */
enum { EXECENV_STACK_MAX = 48 * 1024 };

void *execenv_map(size_t size);
void execenv_unmap(void *memory, size_t size);

/*
 * Runs call (an expression of the environment named env) and yields its value.
 * A macro, because memory of alloca ends with the function that took it.
 */
#define WITH_EXECENV(type, envp, env, call)                                   \
    ({                                                                        \
        size_t size_ = execenv_size(envp);                                    \
        void *memory_ = !size_                      ? NULL                    \
                        : size_ < EXECENV_STACK_MAX ? __builtin_alloca(size_) \
                                                    : execenv_map(size_);     \
        char *const *env = memory_ ? execenv_build(envp, memory_) : (envp);   \
        type result_ = (call);                                                \
        if (size_ >= EXECENV_STACK_MAX)                                       \
            execenv_unmap(memory_, size_);                                    \
        result_;                                                              \
    })

#endif
