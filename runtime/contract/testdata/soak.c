// SPDX-License-Identifier: Apache-2.0
/*
 * Very many connections, one after another or at once, mixed with forks.
 *
 *   serve PORT PROCESSES MARK          echoes, in processes that share a listener
 *   connect HOST PORT COUNT PROCESSES  connect, echo one word, reset; COUNT times
 *   open HOST PORT COUNT               COUNT open at once, each echoes twice
 *
 * Clients print one JSON object: how many were served, and failures by errno.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_S = 20, FORK_EVERY = 200, ERRNOS = 200, BATCH = 64 };

/* Shared by the processes of a client. */
struct tally {
    long served;
    long failed[ERRNOS]; /* by errno; 0: the stream ended or was wrong */
};

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void raise_limit(void) {
    struct rlimit r;
    getrlimit(RLIMIT_NOFILE, &r);
    r.rlim_cur = r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
}

/* A child that inherits everything and goes away at once. */
static void fork_once(void) {
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    if (pid > 0)
        waitpid(pid, NULL, 0);
}

static void serve_loop(int listener) {
    int ep = epoll_create1(0);
    struct epoll_event ev = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.fd = listener}, got[BATCH];
    if (epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev) != 0)
        die("epoll_ctl");
    for (long accepted = 0;;) {
        int n = epoll_wait(ep, got, BATCH, -1);
        for (int i = 0; i < n; i++) {
            int fd = got[i].data.fd;
            uint64_t word;
            ssize_t size;
            if (fd == listener) {
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    struct epoll_event in = {.events = EPOLLIN, .data.fd = fd};
                    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &in);
                    if (++accepted % FORK_EVERY == 0)
                        fork_once();
                }
                continue;
            }
            size = recv(fd, &word, sizeof word, 0);
            if (size < 0 && errno == EAGAIN)
                continue;
            if (size != sizeof word || send(fd, &word, sizeof word, MSG_NOSIGNAL) != size)
                close(fd);
        }
    }
}

static int serve(char **argv) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[0]))};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, 4096) != 0)
        die("listen");
    for (int i = 1; i < atoi(argv[1]); i++)
        if (fork() == 0)
            serve_loop(fd);
    serve_loop(fd);
    return 0;
}

static struct sockaddr_in resolve(char **argv) {
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
    struct sockaddr_in to;
    if (getaddrinfo(argv[0], argv[1], &hints, &found) != 0) {
        fprintf(stderr, "%s: no such name\n", argv[0]);
        exit(1);
    }
    memcpy(&to, found->ai_addr, sizeof to);
    freeaddrinfo(found);
    return to;
}

/* 0, an errno, or -1 when the stream was wrong. */
static int echo(int fd, uint64_t word) {
    uint64_t back = 0;
    ssize_t n;
    if (send(fd, &word, sizeof word, MSG_NOSIGNAL) != sizeof word)
        return errno;
    n = recv(fd, &back, sizeof back, MSG_WAITALL);
    return n < 0 ? errno : n == sizeof back && back == word ? 0 : -1;
}

/* Reset, not closed: TIME_WAIT would use up the ports. */
static void drop(int fd) {
    struct linger now = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
}

static int dial(const struct sockaddr_in *to) {
    struct timeval limit = {.tv_sec = PATIENCE_S};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(fd, (const struct sockaddr *)to, sizeof *to) == 0)
        return fd;
    int cause = errno;
    close(fd);
    errno = cause;
    return -1;
}

static void count(struct tally *t, int error) {
    if (error == 0)
        __atomic_add_fetch(&t->served, 1, __ATOMIC_RELAXED);
    else
        __atomic_add_fetch(&t->failed[error > 0 && error < ERRNOS ? error : 0], 1,
                           __ATOMIC_RELAXED);
}

static void connect_loop(struct tally *t, const struct sockaddr_in *to, long many) {
    for (long i = 1; i <= many; i++) {
        int error = 0, fd = dial(to);
        if (fd < 0) {
            count(t, errno);
            continue;
        }
        error = echo(fd, ((uint64_t)getpid() << 32) + (uint64_t)i);
        if (i % FORK_EVERY == 0)
            fork_once();
        count(t, error);
        drop(fd);
    }
}

static int open_many(struct tally *t, const struct sockaddr_in *to, long many) {
    int *fd = calloc((size_t)many, sizeof *fd);
    for (long i = 0; i < many; i++) {
        fd[i] = dial(to);
        int error = fd[i] < 0 ? errno : echo(fd[i], (uint64_t)i);
        if (error)
            count(t, error);
    }
    for (long i = 0; i < many; i++) /* all are open now */
        if (fd[i] >= 0)
            count(t, echo(fd[i], (uint64_t)(i + many)));
    return 0;
}

static void report(const struct tally *t, double seconds) {
    printf("{\"served\":%ld,\"seconds\":%.1f,\"failed\":{", t->served, seconds);
    for (int e = 0, some = 0; e < ERRNOS; e++)
        if (t->failed[e])
            printf("%s\"%s\":%ld", some++ ? "," : "", e ? strerror(e) : "wrong stream",
                   t->failed[e]);
    printf("}}\n");
}

int main(int argc, char **argv) {
    struct timespec began, ended;
    struct tally *t =
        mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    raise_limit();
    signal(SIGPIPE, SIG_IGN);
    if (argc == 5 && strcmp(argv[1], "serve") == 0)
        return serve(argv + 2);
    if (argc < 5)
        return 2;
    struct sockaddr_in to = resolve(argv + 2);
    long many = atol(argv[4]);
    clock_gettime(CLOCK_MONOTONIC, &began);
    if (argc == 5 && strcmp(argv[1], "open") == 0) {
        open_many(t, &to, many);
    } else if (argc == 6 && strcmp(argv[1], "connect") == 0) {
        int processes = atoi(argv[5]);
        for (int i = 0; i < processes; i++)
            if (fork() == 0) {
                connect_loop(t, &to, many / processes);
                _exit(0);
            }
        while (wait(NULL) > 0) {
        }
    } else {
        return 2;
    }
    clock_gettime(CLOCK_MONOTONIC, &ended);
    report(t,
           (double)(ended.tv_sec - began.tv_sec) + (double)(ended.tv_nsec - began.tv_nsec) / 1e9);
    return 0;
}
