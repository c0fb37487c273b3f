/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the monitor uses of the guest's libc: found at the first use, never
 * linked. A member is NULL when that libc does not have the function.
 */
#ifndef BOXER_LIBC_H
#define BOXER_LIBC_H

#include <netdb.h>
#include <spawn.h>
#include <stddef.h>
#include <sys/socket.h>

struct libc {
    int (*connect)(int, const void *, socklen_t);
    int (*accept4)(int, void *, socklen_t *, int);
    ssize_t (*sendto)(int, const void *, size_t, int, const void *, socklen_t);
    ssize_t (*sendmsg)(int, const struct msghdr *, int);
    int (*sendmmsg)(int, struct mmsghdr *, unsigned, int);
    int *(*h_errno_location)(void);
    const char *(*gnu_get_libc_version)(void); /* tells glibc from musl */
    int (*getaddrinfo)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    void (*freeaddrinfo)(struct addrinfo *);
    int (*getnameinfo)(const void *, socklen_t, char *, socklen_t, char *, socklen_t, int);
    struct hostent *(*gethostbyname)(const char *);
    struct hostent *(*gethostbyname2)(const char *, int);
    int (*gethostbyname_r)(const char *, struct hostent *, char *, size_t, struct hostent **,
                           int *);
    int (*gethostbyname2_r)(const char *, int, struct hostent *, char *, size_t, struct hostent **,
                            int *);
    struct hostent *(*gethostbyaddr)(const void *, socklen_t, int);
    int (*gethostbyaddr_r)(const void *, socklen_t, int, struct hostent *, char *, size_t,
                           struct hostent **, int *);
    int (*execvpe)(const char *, char *const *, char *const *);
    int (*fexecve)(int, char *const *, char *const *);
    int (*posix_spawn)(pid_t *, const char *, const posix_spawn_file_actions_t *,
                       const posix_spawnattr_t *, char *const *, char *const *);
    int (*posix_spawnp)(pid_t *, const char *, const posix_spawn_file_actions_t *,
                        const posix_spawnattr_t *, char *const *, char *const *);
    int (*system)(const char *);
    void *(*popen)(const char *, const char *);
    int (*getaddrinfo_a)(int, struct gaicb **, int, struct sigevent *);
};

const struct libc *libc(void);

/* libc()'s table as it is now: a member is NULL as long as nobody has called that. */
extern struct libc libc_found __attribute__((visibility("hidden")));
#define LIBC_IF_FOUND(member) __atomic_load_n(&libc_found.member, __ATOMIC_RELAXED)

int libc_errno(void);
void libc_set_errno(int error);

/* A core's result as libc gives it: -1 and errno, or the result. */
long libc_result(long result);

/*
 * The way back: what a function of libc returned, with the error taken out of
 * errno, so that a later success leaves errno as it was.
 */
long libc_without_errno(long result, int saved);
int libc_has_errno(void);

/* The environment of the guest as it is now; NULL when there is none. */
char **libc_environ(void);
void libc_set_environ(char **envp);

/*
 * connect() and accept4() of the kernel, entered through libc where it is
 * there: in libc they are cancellation points, and only libc can be that.
 */
long kernel_connect(int fd, const void *sa, socklen_t len);
long kernel_accept4(int fd, void *sa, socklen_t *len, int flags);

#endif
