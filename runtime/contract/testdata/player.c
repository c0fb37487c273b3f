// SPDX-License-Identifier: Apache-2.0
/*
 * One of two processes that make the socket calls they are told to make and
 * tell what came of each. Linked dynamically, so that the process monitor can be
 * preloaded into it; it knows nothing of Boxer.
 *
 *   player ROLE      ROLE is 0 or 1
 *
 * A process has four sockets, always at descriptors SLOT + 0..3, and an epoll
 * instance at EPOLL, so that the kernel remembers everything across fork and
 * exec. It is told what to do on CONTROL + ROLE (SOCK_SEQPACKET), one step at a
 * time:
 *
 *   GUARD WAIT EXPECTED OP ARGS...
 *
 * and answers "RESULT|STATE|DOMAINS". A call that has not returned after GUARD
 * milliseconds is interrupted. STATE is what poll and FIONREAD say of the
 * sockets, and the length of an accept queue, or 1 for a closed connection. It is
 * looked at until it is the EXPECTED one, for at most WAIT milliseconds; where "-"
 * is expected, until it no longer changes, and where "=" is, for a while. DOMAINS
 * are the address families of the sockets.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { CONTROL = 90, BRIDGE = 92, SLOT = 100, SLOTS = 4, EPOLL = 110, TEXT = 1024, ARGS = 12 };
enum { CLOSED = 7 }; /* TCP_CLOSE (tcp_states.h) */

static int role, guard;
static char result[TEXT];

static int64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void alarmed(int sig) {
    (void)sig;
}

/* Again and again: the first may come before the call is made. */
static void arm(int ms) {
    struct itimerval t = {{ms / 1000, ms % 1000 * 1000}, {ms / 1000, ms % 1000 * 1000}};
    setitimer(ITIMER_REAL, &t, NULL);
}

static void say_error(void) {
    const char *name = strerrorname_np(errno);
    snprintf(result, sizeof result, "%s", name ? name : "?");
}

static void say(long r) {
    if (r < 0)
        say_error();
    else
        snprintf(result, sizeof result, "%ld", r);
}

static int slot(const char *arg) {
    return SLOT + atoi(arg);
}

/* Moves a descriptor to where it belongs and says what it was. */
static void put(int fd, int at) {
    say(fd);
    if (fd < 0)
        return;
    dup3(fd, at, fcntl(fd, F_GETFD) & FD_CLOEXEC ? O_CLOEXEC : 0);
    close(fd);
}

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    unsigned char bytes[sizeof(struct sockaddr_in6) + 8];
};

static int port_of(int fd) {
    union address a;
    socklen_t len = sizeof a;
    memset(&a, 0, sizeof a);
    return getsockname(fd, &a.any, &len) < 0 ? 1 : ntohs(a.v4.sin_port);
}

/* 4/IP/PORT, 6/IP/PORT, unspec, odd or null; PORT =N is the port of slot N. */
static struct sockaddr *address(const char *text, union address *a, socklen_t *len) {
    char ip[64];
    const char *slash = strrchr(text, '/');
    int port;
    memset(a, 0, sizeof *a);
    *len = sizeof a->v4;
    if (!strcmp(text, "null"))
        return NULL;
    a->any.sa_family = !strcmp(text, "odd") ? 99 : AF_UNSPEC;
    if (!slash)
        return &a->any;
    snprintf(ip, sizeof ip, "%.*s", (int)(slash - text - 2), text + 2);
    port = slash[1] == '=' ? port_of(slot(slash + 2)) : atoi(slash + 1);
    if (*text == '4') {
        a->v4.sin_family = AF_INET;
        inet_pton(AF_INET, ip, &a->v4.sin_addr);
    } else {
        *len = sizeof a->v6;
        a->v6.sin6_family = AF_INET6;
        inet_pton(AF_INET6, ip, &a->v6.sin6_addr);
    }
    a->v4.sin_port = htons(port); /* at the same place in both */
    return &a->any;
}

enum { UNTOUCHED = 0xa5 };

/* Appends an address that was written into a buffer of room bytes. */
static void say_address(const union address *a, socklen_t room, socklen_t len) {
    size_t n = strlen(result);
    char ip[64] = "";
    unsigned beyond = len < room ? len : room;
    while (beyond < sizeof a->bytes && a->bytes[beyond] == UNTOUCHED)
        beyond++;
    n += snprintf(result + n, sizeof result - n, " len=%u%s", len,
                  beyond < sizeof a->bytes ? " overwritten" : "");
    if (room < 4 || a->any.sa_family == (UNTOUCHED << 8 | UNTOUCHED))
        return;
    if (a->any.sa_family == AF_INET && room >= 8)
        inet_ntop(AF_INET, &a->v4.sin_addr, ip, sizeof ip);
    else if (a->any.sa_family == AF_INET6 && room >= 24)
        inet_ntop(AF_INET6, &a->v6.sin6_addr, ip, sizeof ip);
    n += snprintf(result + n, sizeof result - n, " %d@%s/%d", a->any.sa_family, ip,
                  ntohs(a->v4.sin_port));
    if (a->any.sa_family == AF_INET && room >= sizeof a->v4) {
        static const char zero[sizeof a->v4.sin_zero];
        if (memcmp(zero, a->v4.sin_zero, sizeof zero))
            snprintf(result + n, sizeof result - n, " sin_zero");
    } else if (a->any.sa_family == AF_INET6 && room >= sizeof a->v6) {
        snprintf(result + n, sizeof result - n, " %u %u", a->v6.sin6_flowinfo,
                 a->v6.sin6_scope_id);
    }
}

static void do_socket(char **arg) {
    int flags = (strchr(arg[2], 'n') ? SOCK_NONBLOCK : 0) | (strchr(arg[2], 'c') ? SOCK_CLOEXEC : 0);
    put(socket(*arg[1] == '6' ? AF_INET6 : AF_INET, SOCK_STREAM | flags, 0), slot(arg[0]));
}

/* A length of 0 stands for the right one. */
static void do_bind(char **arg) {
    union address a;
    socklen_t len;
    struct sockaddr *sa = address(arg[1], &a, &len);
    say(bind(slot(arg[0]), sa, atoi(arg[2]) ? (socklen_t)atoi(arg[2]) : len));
}

/* With a patient guard also the socket's own time-out must be patient. */
static void do_connect(char **arg) {
    int fd = slot(arg[0]);
    union address a;
    socklen_t len, n = sizeof(struct timeval);
    struct timeval limit = {0, 0}, patient = {guard / 1000, 0};
    struct sockaddr *sa = address(arg[1], &a, &len);
    getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, &n);
    int changed = guard >= 1000 && (limit.tv_sec || limit.tv_usec);
    if (changed)
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patient, sizeof patient);
    arm(guard);
    say(connect(fd, sa, atoi(arg[2]) ? (socklen_t)atoi(arg[2]) : len));
    arm(0);
    if (changed)
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

/* accept LISTENER SLOT FLAGS ROOM: a room of -1 is a NULL address. */
static void do_accept(char **arg) {
    union address a;
    int room = atoi(arg[3]);
    socklen_t len = room < 0 ? 0 : room;
    int flags = (strchr(arg[2], 'n') ? SOCK_NONBLOCK : 0) | (strchr(arg[2], 'c') ? SOCK_CLOEXEC : 0);
    struct sockaddr *sa = room < 0 ? NULL : &a.any;
    memset(&a, UNTOUCHED, sizeof a);
    arm(guard);
    int fd = strchr(arg[2], '-') ? accept(slot(arg[0]), sa, sa ? &len : NULL)
                                 : accept4(slot(arg[0]), sa, sa ? &len : NULL, flags);
    arm(0);
    put(fd, slot(arg[1]));
    if (room >= 0)
        say_address(&a, room, len);
}

static void do_name(char **arg, int (*name)(int, struct sockaddr *, socklen_t *)) {
    union address a;
    socklen_t room = atoi(arg[1]), len = room;
    memset(&a, UNTOUCHED, sizeof a);
    say(name(slot(arg[0]), &a.any, &len));
    say_address(&a, room, len);
}

static const struct option {
    const char *name;
    int level, number;
} options[] = {
    {"error", SOL_SOCKET, SO_ERROR},         {"acceptconn", SOL_SOCKET, SO_ACCEPTCONN},
    {"type", SOL_SOCKET, SO_TYPE},           {"domain", SOL_SOCKET, SO_DOMAIN},
    {"nodelay", IPPROTO_TCP, TCP_NODELAY},   {"keepalive", SOL_SOCKET, SO_KEEPALIVE},
    {"reuseaddr", SOL_SOCKET, SO_REUSEADDR}, {"reuseport", SOL_SOCKET, SO_REUSEPORT},
    {"linger", SOL_SOCKET, SO_LINGER},       {"sndtimeo", SOL_SOCKET, SO_SNDTIMEO},
    {"rcvtimeo", SOL_SOCKET, SO_RCVTIMEO},   {"v6only", IPPROTO_IPV6, IPV6_V6ONLY},
    {"defer", IPPROTO_TCP, TCP_DEFER_ACCEPT}, {"fastopen", IPPROTO_TCP, TCP_FASTOPEN},
    {"keepidle", IPPROTO_TCP, TCP_KEEPIDLE}, {"oobinline", SOL_SOCKET, SO_OOBINLINE},
    {"tos", IPPROTO_IP, IP_TOS},             {"rcvlowat", SOL_SOCKET, SO_RCVLOWAT},
    {"transparent", IPPROTO_IP, IP_TRANSPARENT},
    {"noport", IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT},
};

static const struct option *option(const char *name) {
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (!strcmp(options[i].name, name))
            return &options[i];
    return &options[0];
}

/* getopt SLOT NAME */
static void do_getopt(char **arg) {
    const struct option *o = option(arg[1]);
    int value[4] = {0};
    socklen_t len = sizeof value;
    say(getsockopt(slot(arg[0]), o->level, o->number, value, &len));
    size_t n = strlen(result);
    snprintf(result + n, sizeof result - n, " len=%u %d %d %d %d", len, value[0], value[1],
             value[2], value[3]);
}

/* setopt SLOT NAME VALUE: of a time-out milliseconds; of linger seconds, -1 is off. */
static void do_setopt(char **arg) {
    const struct option *o = option(arg[1]);
    int value = atoi(arg[2]);
    struct timeval t = {value / 1000, value % 1000 * 1000};
    struct linger l = {value >= 0, value < 0 ? 0 : value};
    const void *p = &value;
    socklen_t len = sizeof value;
    if (strstr(arg[1], "timeo")) {
        p = &t;
        len = sizeof t;
    } else if (!strcmp(arg[1], "linger")) {
        p = &l;
        len = sizeof l;
    }
    say(setsockopt(slot(arg[0]), o->level, o->number, p, len));
}

static int message_flags(const char *text) {
    return (strchr(text, 'd') ? MSG_DONTWAIT : 0) | (strchr(text, 'p') ? MSG_PEEK : 0) |
           (strchr(text, 'w') ? MSG_WAITALL : 0) | (strchr(text, 'o') ? MSG_OOB : 0);
}

/* send SLOT TEXT FLAGS */
static void do_send(char **arg) {
    arm(guard);
    say(send(slot(arg[0]), arg[1], strlen(arg[1]), message_flags(arg[2]) | MSG_NOSIGNAL));
    arm(0);
}

/* recv SLOT SIZE FLAGS */
static void do_recv(char **arg) {
    char text[256];
    arm(guard);
    long r = recv(slot(arg[0]), text, atoi(arg[1]), message_flags(arg[2]));
    arm(0);
    say(r);
    if (r > 0) {
        size_t n = strlen(result);
        snprintf(result + n, sizeof result - n, " %.*s", (int)r, text);
    }
}

static void do_nonblock(char **arg) {
    int fd = slot(arg[0]), flags = fcntl(fd, F_GETFL);
    say(fcntl(fd, F_SETFL, atoi(arg[1]) ? flags | O_NONBLOCK : flags & ~O_NONBLOCK));
}

static void do_flags(char **arg) {
    say(fcntl(slot(arg[0]), F_GETFL));
    size_t n = strlen(result);
    snprintf(result + n, sizeof result - n, " %d", fcntl(slot(arg[0]), F_GETFD));
}

static void do_poll(char **arg) {
    struct pollfd p = {slot(arg[0]), (short)atoi(arg[1]), 0};
    say(poll(&p, 1, atoi(arg[2])));
    size_t n = strlen(result);
    snprintf(result + n, sizeof result - n, " %#x", p.revents);
}

/* epoll add|mod|del SLOT EVENTS */
static void do_epoll(char **arg) {
    int op = *arg[0] == 'a' ? EPOLL_CTL_ADD : *arg[0] == 'm' ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;
    struct epoll_event e = {.events = strtoul(arg[2], NULL, 0), .data.fd = slot(arg[1])};
    if (fcntl(EPOLL, F_GETFD) < 0)
        put(epoll_create1(0), EPOLL);
    say(epoll_ctl(EPOLL, op, slot(arg[1]), &e));
}

static void do_wait(void) {
    uint32_t seen[SLOTS] = {0};
    struct epoll_event e[SLOTS];
    int r = epoll_wait(EPOLL, e, SLOTS, 0);
    say(r);
    for (int i = 0; i < r; i++)
        seen[e[i].data.fd - SLOT] = e[i].events;
    size_t n = strlen(result);
    snprintf(result + n, sizeof result - n, " %#x %#x %#x %#x", seen[0], seen[1], seen[2], seen[3]);
}

/* Passes a socket to the other process, which takes it. */
static void do_pass(char **arg) {
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.header = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    struct iovec one = {"x", 1};
    struct msghdr m = {.msg_iov = &one, .msg_iovlen = 1};
    int fd = slot(arg[0]);
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    m.msg_control = &control;
    m.msg_controllen = sizeof control;
    say(sendmsg(BRIDGE + role, &m, MSG_DONTWAIT | MSG_NOSIGNAL));
}

static void do_take(char **arg) {
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    char byte;
    struct iovec one = {&byte, 1};
    struct msghdr m = {.msg_iov = &one, .msg_iovlen = 1};
    int fd = -1;
    m.msg_control = &control;
    m.msg_controllen = sizeof control;
    if (recvmsg(BRIDGE + role, &m, MSG_DONTWAIT) == 1 && CMSG_FIRSTHDR(&m))
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
    put(fd, slot(arg[0]));
}

/* Ends a sequence, and leaves no TIME_WAIT where that can be avoided. */
static void reset(void) {
    struct linger now = {1, 0};
    for (int fd = SLOT; fd < SLOT + SLOTS; fd++) {
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        close(fd);
    }
    close(EPOLL);
    say(0);
}

static char domains[TEXT];

static void state(char *out, size_t room) {
    struct pollfd p[SLOTS];
    size_t n = 0, m = 0;
    for (int i = 0; i < SLOTS; i++)
        p[i] = (struct pollfd){SLOT + i, POLLIN | POLLOUT | POLLPRI | POLLRDHUP, 0};
    poll(p, SLOTS, 0);
    for (int i = 0; i < SLOTS; i++) {
        struct tcp_info info;
        int unread = 0, hidden = 0, domain = 0;
        socklen_t len = sizeof domain;
        getsockopt(p[i].fd, SOL_SOCKET, SO_DOMAIN, &domain, &len);
        m += snprintf(domains + m, sizeof domains - m, "%s%d", i ? "," : "", domain);
        len = sizeof info;
        if (p[i].revents & POLLNVAL) {
            n += snprintf(out + n, room - n, "%s-", i ? "," : "");
            continue;
        }
        if (getsockopt(p[i].fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
            memset(&info, 0, sizeof info);
        if (ioctl(p[i].fd, FIONREAD, &unread) < 0) { /* a listener */
            unread = -1;
            hidden = info.tcpi_unacked;
        } else {
            hidden = p[i].revents & POLLRDHUP && info.tcpi_state == CLOSED;
        }
        n += snprintf(out + n, room - n, "%s%x.%d.%d", i ? "," : "", p[i].revents, unread, hidden);
    }
}

/* Whether two states look the same to a program: but for the last numbers. */
static int look_same(const char *a, const char *b) {
    for (int dots = 0;;) {
        if (dots == 2) {
            a += strcspn(a, ",");
            b += strcspn(b, ",");
            dots = 0;
        }
        if (*a != *b)
            return 0;
        if (!*a)
            return 1;
        dots = *a == ',' ? 0 : dots + (*a == '.');
        a++;
        b++;
    }
}

enum { HIDDEN_WAIT = 50 }; /* ms, for the last numbers, which need not be the same */
enum { QUICK_REST = 2, LONG_REST = 20 }; /* looks */

static void settle(const char *expected, int wait_ms, char *out, size_t room) {
    char before[TEXT] = "";
    int64_t now = now_us(), end = now + wait_ms * 1000LL, hidden_end = now + HIDDEN_WAIT * 1000LL;
    int pause = 20, looked = 0, is_long = !strcmp(expected, "=");
    int rest = is_long ? LONG_REST : !strcmp(expected, "-") ? QUICK_REST : 0;
    for (;; now = now_us()) {
        state(out, room);
        looked = strcmp(before, out) ? 0 : looked + 1;
        if (rest ? looked >= rest : !strcmp(expected, out))
            return;
        if (now >= end || (!rest && now >= hidden_end && look_same(expected, out)))
            return;
        snprintf(before, sizeof before, "%s", out);
        sched_yield();
        if (rest != QUICK_REST) {
            usleep(pause);
            pause = pause < 2000 ? pause * 2 : pause;
        }
    }
}

static void do_fork(void) {
    int child = fork();
    if (child == 0)
        role = 1 - role;
    say(child < 0 ? -1 : 0);
}

static void do_exec(void) {
    char number[2] = {'0' + role, 0};
    char *argv[] = {"player", number, NULL};
    execv("/proc/self/exe", argv);
    say(-1);
}

static void perform(const char *op, char **arg) {
    *result = 0;
    errno = 0;
    if (!strcmp(op, "socket"))
        do_socket(arg);
    else if (!strcmp(op, "bind"))
        do_bind(arg);
    else if (!strcmp(op, "listen"))
        say(listen(slot(arg[0]), atoi(arg[1])));
    else if (!strcmp(op, "connect"))
        do_connect(arg);
    else if (!strcmp(op, "accept"))
        do_accept(arg);
    else if (!strcmp(op, "getsockname"))
        do_name(arg, getsockname);
    else if (!strcmp(op, "getpeername"))
        do_name(arg, getpeername);
    else if (!strcmp(op, "getopt"))
        do_getopt(arg);
    else if (!strcmp(op, "setopt"))
        do_setopt(arg);
    else if (!strcmp(op, "send"))
        do_send(arg);
    else if (!strcmp(op, "recv"))
        do_recv(arg);
    else if (!strcmp(op, "shutdown"))
        say(shutdown(slot(arg[0]), atoi(arg[1])));
    else if (!strcmp(op, "dup"))
        put(dup(slot(arg[0])), slot(arg[1]));
    else if (!strcmp(op, "dup2"))
        say(dup2(slot(arg[0]), slot(arg[1])));
    else if (!strcmp(op, "close"))
        say(close(slot(arg[0])));
    else if (!strcmp(op, "nonblock"))
        do_nonblock(arg);
    else if (!strcmp(op, "flags"))
        do_flags(arg);
    else if (!strcmp(op, "poll"))
        do_poll(arg);
    else if (!strcmp(op, "epoll"))
        do_epoll(arg);
    else if (!strcmp(op, "wait"))
        do_wait();
    else if (!strcmp(op, "pass"))
        do_pass(arg);
    else if (!strcmp(op, "take"))
        do_take(arg);
    else if (!strcmp(op, "reset"))
        reset();
    else if (!strcmp(op, "fork"))
        do_fork();
    else if (!strcmp(op, "exec"))
        do_exec();
    else if (strcmp(op, "look"))
        snprintf(result, sizeof result, "no such step: %s", op);
}

static void answer(const char *expected, int wait_ms) {
    char text[3 * TEXT], seen[TEXT];
    settle(expected, wait_ms, seen, sizeof seen);
    int n = snprintf(text, sizeof text, "%s|%s|%s", result, seen, domains);
    if (send(CONTROL + role, text, n, MSG_NOSIGNAL) < 0)
        _exit(1);
}

int main(int argc, char **argv) {
    struct sigaction alarm_action = {.sa_handler = alarmed};
    if (argc != 2)
        return 2;
    role = atoi(argv[1]);
    sigaction(SIGALRM, &alarm_action, NULL);
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    strcpy(result, "0");
    answer("-", 0);
    for (;;) {
        char text[TEXT], *arg[ARGS] = {0}, *rest = text;
        ssize_t n = recv(CONTROL + role, text, sizeof text - 1, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return 0;
        text[n] = 0;
        for (int i = 0; i < ARGS && (arg[i] = strsep(&rest, " ")); i++) {
        }
        guard = atoi(arg[0]);
        if (!strcmp(arg[3], "quit")) {
            reset();
            answer("-", 0);
            return 0;
        }
        perform(arg[3], arg + 4);
        answer(arg[2], atoi(arg[1]));
    }
}
