/* SPDX-License-Identifier: Apache-2.0 */
/* What Python cannot do: signals in the middle of a call, cancellation, vfork. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static struct sockaddr_in to;
static volatile sig_atomic_t signals;

static void fail(const char *what) {
    printf("%s: %s\n", what, strerror(errno));
    exit(1);
}

static void on_signal(int n) {
    (void)n;
    signals++;
}

static void every_millisecond(int flags) {
    struct sigaction a = {.sa_handler = on_signal, .sa_flags = flags};
    struct itimerval t = {{0, 1000}, {0, 1000}};
    sigaction(SIGALRM, &a, NULL);
    setitimer(ITIMER_REAL, &t, NULL);
}

/* After EINTR the connection goes on being made: poll says when it is. */
static void wait_connected(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    int error = 0, n;
    socklen_t len = sizeof error;
    while ((n = poll(&p, 1, 10000)) < 0 && errno == EINTR) {
    }
    if (n != 1 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error) {
        errno = error;
        fail("not connected");
    }
}

static void echo(int fd, const char *line) {
    char back[100];
    size_t n = 0;
    ssize_t r;
    if (send(fd, line, strlen(line), MSG_NOSIGNAL) != (ssize_t)strlen(line))
        fail("send");
    while (n < strlen(line)) {
        r = recv(fd, back + n, sizeof back - n, 0);
        if (r == 0 || (r < 0 && errno != EINTR))
            fail("recv");
        n += r > 0 ? (size_t)r : 0;
    }
    if (memcmp(line, back, n) != 0)
        fail("echo");
}

static void connect_under_signals(const char *mode, int count) {
    int restart = strcmp(mode, "restart") == 0;
    every_millisecond(restart ? SA_RESTART : 0);
    for (int i = 0; i < count; i++) {
        char line[64];
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) {
            if (restart || errno != EINTR)
                fail("connect");
            if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EALREADY &&
                errno != EISCONN && errno != EINTR)
                fail("connect again");
            wait_connected(fd);
        }
        snprintf(line, sizeof line, "%s-%d\n", mode, i);
        echo(fd, line);
        close(fd);
    }
    puts(signals ? "ok" : "no signal came");
}

static void *accept_forever(void *listener) {
    accept(*(int *)listener, NULL, NULL);
    return NULL;
}

static void *connect_on(void *fd) {
    connect(*(int *)fd, (struct sockaddr *)&to, sizeof to);
    return NULL;
}

static void cancelled(void *(*what)(void *), int fd) {
    pthread_t thread;
    void *result = NULL;
    pthread_create(&thread, NULL, what, &fd);
    usleep(100000);
    pthread_cancel(thread);
    pthread_join(thread, &result);
    puts(result == PTHREAD_CANCELED ? "cancelled" : "not cancelled");
}

static void cancel_accept(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (listen(fd, 1) < 0)
        fail("listen");
    cancelled(accept_forever, fd);
}

/* The child shares this process's memory, and this thread its stack. */
static void connect_in_vfork(void) {
    int status = 0, fd = socket(AF_INET, SOCK_STREAM, 0);
    pid_t child = vfork();
    if (child == 0)
        _exit(connect(fd, (struct sockaddr *)&to, sizeof to) < 0 ? errno : 0);
    if (waitpid(child, &status, 0) != child || status) {
        errno = WEXITSTATUS(status);
        fail("vfork");
    }
    echo(fd, "from vfork");
    puts("ok");
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    to.sin_family = AF_INET;
    if (argc > 3) {
        inet_pton(AF_INET, argv[2], &to.sin_addr);
        to.sin_port = htons((unsigned short)atoi(argv[3]));
    }
    if (strcmp(mode, "cancel-accept") == 0)
        cancel_accept();
    else if (strcmp(mode, "cancel-connect") == 0)
        cancelled(connect_on, socket(AF_INET, SOCK_STREAM, 0));
    else if (strcmp(mode, "vfork") == 0)
        connect_in_vfork();
    else
        connect_under_signals(mode, argc > 4 ? atoi(argv[4]) : 1);
    return 0;
}
