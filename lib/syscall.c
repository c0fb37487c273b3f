/* SPDX-License-Identifier: Apache-2.0 */
/*
 * syscall(): programs that go around libc's functions come through the same
 * cores. Everything else goes to the kernel at once, on the caller's own frame:
 * no C function may stand between, for the call may be a clone() that returns
 * on another stack or a vfork() that returns twice.
 */
#include <sys/uio.h>

#include "hooks.h"
#include "libc.h"
#include "sys.h"

enum { NUMBERS = 512 };

/* The calls that syscall_routed knows. Read by the entry below. */
__attribute__((used)) const uint8_t syscall_is_routed[NUMBERS] = {
    [__NR_bind] = 1,        [__NR_listen] = 1,      [__NR_connect] = 1, [__NR_accept] = 1,
    [__NR_accept4] = 1,     [__NR_getsockname] = 1, [__NR_sendto] = 1,  [__NR_sendmsg] = 1,
    [__NR_getpeername] = 1, [__NR_sendmmsg] = 1,    [__NR_uname] = 1,   [__NR_execve] = 1,
    [__NR_execveat] = 1,
};

static long route(long n, long a, long b, long c, long d, long e, long f) {
    switch (n) {
        case __NR_bind:
            return hook_bind((int)a, (void *)b, (socklen_t)c);
        case __NR_listen:
            return hook_listen((int)a, (int)b);
        case __NR_connect:
            return hook_connect((int)a, (void *)b, (socklen_t)c);
        case __NR_accept:
            return hook_accept4((int)a, (void *)b, (void *)c, 0);
        case __NR_accept4:
            return hook_accept4((int)a, (void *)b, (void *)c, (int)d);
        case __NR_getsockname:
            return hook_getsockname((int)a, (void *)b, (void *)c);
        case __NR_getpeername:
            return hook_getpeername((int)a, (void *)b, (void *)c);
        case __NR_sendto:
            if (d & MSG_FASTOPEN)
                return hook_sendto((int)a, (void *)b, (size_t)c, (int)d, (void *)e, (socklen_t)f);
            break;
        case __NR_sendmsg:
            if (c & MSG_FASTOPEN)
                return hook_sendmsg((int)a, (void *)b, (int)c);
            break;
        case __NR_sendmmsg:
            if (d & MSG_FASTOPEN)
                return hook_sendmmsg((int)a, (void *)b, (unsigned)c, (int)d);
            break;
        case __NR_uname:
            return hook_uname((void *)a);
        case __NR_execve:
            return hook_execve((void *)a, (void *)b, (void *)c);
        case __NR_execveat:
            return hook_execveat((int)a, (void *)b, (void *)c, (void *)d, (int)e);
        default:
            break;
    }
    return boxer_syscall(n, a, b, c, d, e, f);
}

__attribute__((used)) long syscall_routed(long n, long a, long b, long c, long d, long e, long f) {
    return libc_result(route(n, a, b, c, d, e, f));
}

__attribute__((used)) long syscall_failed(long result) {
    return libc_result(result);
}

/* ENTRY(long, syscall, ...), in the only language that can do it. */
#if defined(__x86_64__)
__asm__(
    ".pushsection .text\n"
    ".globl syscall\n"
    ".type syscall, @function\n"
    "syscall:\n"
    "    .cfi_startproc\n"
    "    endbr64\n"
    "    cmpq $511, %rdi\n"
    "    ja 1f\n"
    "    leaq syscall_is_routed(%rip), %rax\n"
    "    cmpb $0, (%rax,%rdi)\n"
    "    jne syscall_routed\n"
    "1:  movq %rdi, %rax\n"
    "    movq %rsi, %rdi\n"
    "    movq %rdx, %rsi\n"
    "    movq %rcx, %rdx\n"
    "    movq %r8, %r10\n"
    "    movq %r9, %r8\n"
    "    movq 8(%rsp), %r9\n"
    "    syscall\n"
    "    cmpq $-4095, %rax\n"
    "    jae 2f\n"
    "    ret\n"
    "2:  movq %rax, %rdi\n"
    "    jmp syscall_failed\n"
    "    .cfi_endproc\n"
    ".size syscall, .-syscall\n"
    ".popsection\n");
#elif defined(__aarch64__)
__asm__(
    ".pushsection .text\n"
    ".globl syscall\n"
    ".type syscall, %function\n"
    ".balign 4\n"
    "syscall:\n"
    "    .cfi_startproc\n"
    "    hint #34\n"
    "    cmp x0, #511\n"
    "    b.hi 1f\n"
    "    adrp x16, syscall_is_routed\n"
    "    add x16, x16, :lo12:syscall_is_routed\n"
    "    ldrb w16, [x16, x0]\n"
    "    cbnz w16, 3f\n"
    "1:  mov x8, x0\n"
    "    mov x0, x1\n"
    "    mov x1, x2\n"
    "    mov x2, x3\n"
    "    mov x3, x4\n"
    "    mov x4, x5\n"
    "    mov x5, x6\n"
    "    svc #0\n"
    "    cmn x0, #4095\n"
    "    b.cs 2f\n"
    "    ret\n"
    "2:  b syscall_failed\n"
    "3:  b syscall_routed\n"
    "    .cfi_endproc\n"
    ".size syscall, .-syscall\n"
    ".popsection\n");
#endif
