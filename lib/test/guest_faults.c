/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of supervisors that are absent, silent, foreign or malicious. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <time.h>

#include "guest.h"

static int dial(const char *ip, unsigned port) {
    struct sockaddr_in a = v4(ip, port);
    int fd = tcp(AF_INET), error;
    error = connect(fd, (struct sockaddr *)&a, sizeof a) == 0 ? 0 : errno;
    close(fd);
    return error;
}

/* What uname says is what the kernel says. */
static void check_own_name(void) {
    struct utsname u;
    char real[128] = {0};
    int fd = open("/proc/sys/kernel/hostname", O_RDONLY);
    CHECK(fd >= 0 && read(fd, real, sizeof real - 1) > 0 && uname(&u) == 0);
    real[strcspn(real, "\n")] = 0;
    CHECK(strcmp(real, u.nodename) == 0);
    close(fd);
}

/* Nothing of Boxer in the environment: as if the library were not there. */
void guest_plain(void) {
    struct sockaddr_in a = v4("127.0.0.1", 0);
    struct addrinfo *l;
    int server = tcp(AF_INET);
    check_own_name();
    CHECK(bind(server, (struct sockaddr *)&a, sizeof a) == 0 && listen(server, 1) == 0);
    CHECK(fcntl(server, F_SETFL, O_NONBLOCK) == 0);
    CHECK_ERRNO(accept(server, NULL, NULL), EAGAIN);
    CHECK(dial("127.68.0.2", echo_port()) == 0);
    CHECK(getaddrinfo("127.0.0.1", "1", NULL, &l) == 0);
    freeaddrinfo(l);
    close(server);
}

/* It takes what it is told and says nothing: listen() is not held up long. */
void guest_silent(void) {
    struct sockaddr_in a = v4("0.0.0.0", 0);
    struct timespec from, to;
    int server = tcp(AF_INET);
    CHECK(bind(server, (struct sockaddr *)&a, sizeof a) == 0);
    clock_gettime(CLOCK_MONOTONIC, &from);
    CHECK(listen(server, 1) == 0);
    clock_gettime(CLOCK_MONOTONIC, &to);
    CHECK(to.tv_sec - from.tv_sec <= 2);
    close(server);
}

/* Its table lasts; what needs it does not. */
void guest_supervisor_gone(void) {
    struct utsname u;
    char byte;
    CHECK(uname(&u) == 0 && strcmp(u.nodename, "front") == 0);
    CHECK(write(1, "x", 1) == 1 && read(0, &byte, 1) == 1); /* now it ends */
    CHECK(dial("100.80.0.2", echo_port()) == 0);
    CHECK(dial("100.80.0.4", 80) == ENETDOWN);
    CHECK(dial("100.80.0.5", 80) == ENETDOWN);
    CHECK(dial("100.80.7.7", 80) == EHOSTUNREACH);
}

/* No table to be had, or none to be trusted: the machine as it is. */
void guest_no_table(void) {
    check_own_name();
    CHECK(dial("127.68.0.2", echo_port()) == 0);
    CHECK(dial("100.80.0.2", echo_port()) == ENETDOWN); /* and not out to the world */
}

void guest_hostile(void) {
    struct sockaddr_in any = v4("0.0.0.0", 0), peer;
    for (int i = 0; i < 300; i++) {
        socklen_t len = sizeof peer;
        int fd = tcp(AF_INET);
        struct timeval soon = {0, 1000};
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &soon, sizeof soon);
        peer = v4(i % 2 ? "100.80.0.4" : "100.80.0.5", 80);
        connect(fd, (struct sockaddr *)&peer, sizeof peer);
        getpeername(fd, (struct sockaddr *)&peer, &len);
        close(fd);
        fd = tcp(AF_INET);
        CHECK(bind(fd, (struct sockaddr *)&any, sizeof any) == 0 && listen(fd, 1) == 0);
        close(fd);
    }
}

static void *ask_names(void *unused) {
    for (int i = 0; i < 200; i++) {
        struct addrinfo *l;
        CHECK(getaddrinfo("store", "80", NULL, &l) == 0);
        freeaddrinfo(l);
        CHECK(dial("100.80.0.2", echo_port()) == 0);
    }
    return unused;
}

void guest_threads(void) {
    pthread_t threads[8];
    for (int i = 0; i < 8; i++)
        CHECK(pthread_create(&threads[i], NULL, ask_names, NULL) == 0);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
}

/* The first table has stopped beating; a new supervisor has another. */
void guest_renewed(void) {
    struct utsname u;
    CHECK(uname(&u) == 0);
    CHECK(uname(&u) == 0 && strcmp(u.nodename, "renewed") == 0);
}

static void *wait_for_connection(void *listener) {
    accept(*(int *)listener, NULL, NULL);
    return NULL;
}

/* A thread that waits in accept can be cancelled there, as in libc's own. */
void guest_cancel(void) {
    struct sockaddr_in any = v4("0.0.0.0", 0);
    pthread_t thread;
    void *result;
    int server = tcp(AF_INET);
    CHECK(bind(server, (struct sockaddr *)&any, sizeof any) == 0 && listen(server, 1) == 0);
    CHECK(pthread_create(&thread, NULL, wait_for_connection, &server) == 0);
    usleep(50000);
    CHECK(pthread_cancel(thread) == 0 && pthread_join(thread, &result) == 0);
    CHECK(result == PTHREAD_CANCELED);
    close(server);
}
