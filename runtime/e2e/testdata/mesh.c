// SPDX-License-Identifier: Apache-2.0

/* One of many that all connect to all others at once: mesh PORT.
 *
 * It answers who connects with one byte. When a line comes, "BEGIN ADDRESS...",
 * BEGIN in seconds since 1970, it connects to all addresses then, AT_ONCE at a
 * time, keeps what it has open, prints what happened as JSON and goes on
 * answering. It is in C so that what is measured is the network's work. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { AT_ONCE = 16, MOST = 4096, PATIENCE = 20 };

struct call {
    struct sockaddr_in to;
    double began, took; /* took 0: not over */
    int fd, connected, error;
};

static struct call calls[MOST];
static int count, next, made, under_way, listener;
static struct pollfd polled[1 + AT_ONCE];
static struct call *caller[1 + AT_ONCE];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void serve(void) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0 && (errno == EAGAIN || errno == ECONNABORTED))
            return;
        if (fd < 0)
            die("accept");
        if (send(fd, "!", 1, MSG_NOSIGNAL) != 1)
            close(fd); /* a caller that found a better way */
    }
}

static void over(struct call *c, int error) {
    c->took = now() - c->began;
    c->error = error;
    under_way--;
    if (error)
        close(c->fd);
    else
        made++;
}

static void begin(struct call *c) {
    c->began = now();
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket");
    under_way++;
    if (connect(c->fd, (struct sockaddr *)&c->to, sizeof c->to) == 0)
        c->connected = 1;
    else if (errno != EINPROGRESS)
        over(c, errno);
}

static void go_on(struct call *c) {
    int error = 0;
    socklen_t size = sizeof error;
    char byte;
    if (!c->connected) {
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error)
            over(c, error);
        else
            c->connected = 1;
        return;
    }
    switch (recv(c->fd, &byte, 1, 0)) {
        case 1:
            over(c, byte == '!' ? 0 : EPROTO);
            break;
        case 0:
            over(c, EPIPE);
            break;
        default:
            if (errno != EAGAIN)
                over(c, errno);
    }
}

/* step waits until something happens, and does what is to be done then. */
static void step(void) {
    int n = 1;
    while (under_way < AT_ONCE && next < count)
        begin(&calls[next++]);
    for (int i = 0; i < next; i++)
        if (!calls[i].took) {
            caller[n] = &calls[i];
            polled[n++] =
                (struct pollfd){.fd = calls[i].fd, .events = calls[i].connected ? POLLIN : POLLOUT};
        }
    polled[0] = (struct pollfd){.fd = listener, .events = POLLIN};
    if (poll(polled, (nfds_t)n, 1000) < 0 && errno != EINTR)
        die("poll");
    if (polled[0].revents)
        serve();
    for (int i = 1; i < n; i++)
        if (polled[i].revents)
            go_on(caller[i]);
        else if (now() - caller[i]->began > PATIENCE)
            over(caller[i], ETIMEDOUT);
}

static void report(double begin, double late) {
    double slowest = 0;
    for (int i = 0; i < count; i++)
        if (!calls[i].error && calls[i].took > slowest)
            slowest = calls[i].took;
    printf("{\"late\":%.3f,\"begin\":%.6f,\"end\":%.6f,\"made\":%d,\"slowest\":%.3f,\"failed\":[",
           late, begin, now(), made, slowest);
    int first = 1;
    for (int i = 0; i < count; i++)
        if (calls[i].error) {
            printf("%s\"%s: %s\"", first ? "" : ",", inet_ntoa(calls[i].to.sin_addr),
                   strerror(calls[i].error));
            first = 0;
        }
    puts("]}");
    fflush(stdout);
}

int main(int argc, char **argv) {
    struct sockaddr_in any = {.sin_family = AF_INET};
    char *line = NULL, *word;
    size_t size = 0;
    int one = 1;
    if (argc != 2) {
        fputs("usage: mesh PORT\n", stderr);
        return 2;
    }
    any.sin_port = htons((uint16_t)atoi(argv[1]));
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&any, sizeof any) != 0 || listen(listener, 256) != 0)
        die("listen");
    if (getline(&line, &size, stdin) < 0)
        die("read what to do");
    double begin = atof(strtok(line, " \n")), late = now() - begin;
    while (count < MOST && (word = strtok(NULL, " \n"))) {
        struct call *c = &calls[count++];
        c->to.sin_family = AF_INET;
        c->to.sin_port = any.sin_port;
        if (inet_pton(AF_INET, word, &c->to.sin_addr) != 1)
            die(word);
    }
    while (now() < begin)
        usleep(1000);
    while (made < count && (next < count || under_way))
        step();
    report(begin, late);
    for (;;)
        step();
}
