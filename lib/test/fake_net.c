/* SPDX-License-Identifier: Apache-2.0 */
/* The fake supervisor's table and its part of the network. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "fake.h"

static struct sockaddr_in at(const char *ip, uint16_t port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    CHECK(inet_pton(AF_INET, ip, &a.sin_addr) == 1);
    return a;
}

static uint16_t port_of(int fd) {
    struct sockaddr_in a;
    socklen_t len = sizeof a;
    CHECK(getsockname(fd, (struct sockaddr *)&a, &len) == 0);
    return ntohs(a.sin_port);
}

static int make_socket(const char *ip, uint16_t port) {
    struct sockaddr_in a = at(ip, port);
    int yes = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &yes, sizeof yes);
    CHECK(bind(fd, (struct sockaddr *)&a, sizeof a) == 0);
    return fd;
}

int fake_listen(const char *ip, uint16_t *port, int backlog) {
    int fd = make_socket(ip, *port);
    CHECK(listen(fd, backlog) == 0);
    *port = port_of(fd);
    return fd;
}

static void *echo(void *argument) {
    int fd = (int)(intptr_t)argument;
    char data[4096];
    ssize_t n;
    while ((n = read(fd, data, sizeof data)) > 0)
        if (send(fd, data, (size_t)n, MSG_NOSIGNAL) != n)
            break;
    close(fd);
    return NULL;
}

void *fake_echo_server(void *fake) {
    struct fake *f = fake;
    int fd;
    while ((fd = accept4(f->echo, NULL, NULL, SOCK_CLOEXEC)) >= 0)
        fake_spawn(echo, (void *)(intptr_t)fd);
    return NULL;
}

/* A port in use, as one is whose place outside a NAT is kept by a connection. */
void fake_keep_port(struct fake *f) {
    struct sockaddr_in echo = at("127.68.0.2", f->echo_port), any = at("0.0.0.0", 0);
    int yes = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0);
    CHECK(bind(fd, (struct sockaddr *)&any, sizeof any) == 0);
    f->kept_port = port_of(fd);
    if (f->local_port == 2)
        CHECK(listen(fd, 1) == 0);
    else
        CHECK(connect(fd, (struct sockaddr *)&echo, sizeof echo) == 0);
}

void *fake_overlay_server(void *fake) {
    struct fake *f = fake;
    struct sockaddr_in from;
    socklen_t len = sizeof from;
    int fd;
    while ((fd = accept4(f->overlay, (struct sockaddr *)&from, &len, SOCK_CLOEXEC)) >= 0) {
        uint8_t preface[96];
        int good = recv(fd, preface, sizeof preface, MSG_WAITALL) == sizeof preface;
        for (unsigned i = 0; good && i < sizeof preface; i++)
            good = preface[i] == i;
        f->from_kept += good && ntohs(from.sin_port) == f->kept_port;
        if (good)
            f->prefaces++;
        else
            f->bad_prefaces++;
        fake_spawn(echo, (void *)(intptr_t)fd);
    }
    return NULL;
}

/* --- the table --- */

static void add_member(struct boxer_table *t, uint32_t id, uint32_t underlay, int transport) {
    struct boxer_member *m =
        (struct boxer_member *)(void *)((char *)t + t->member_off) + t->member_count++;
    *m = (struct boxer_member){.overlay = 0x64500000 + id, .underlay = underlay, .id = id};
    m->transport = (uint8_t)transport;
    if (transport == BOXER_TRANSPORT_NATIVE) {
        struct boxer_native *n =
            (struct boxer_native *)(void *)((char *)t + t->native_off) + t->native_count++;
        *n = (struct boxer_native){underlay, m->overlay};
    }
}

static void add_name(struct boxer_table *t, const char *name, uint32_t a, uint32_t b) {
    struct boxer_name *n = (struct boxer_name *)(void *)((char *)t + t->name_off) + t->name_count++;
    uint32_t *addrs = (uint32_t *)(void *)((char *)t + t->addr_off);
    strcpy(n->name, name);
    n->first = t->addr_count;
    addrs[t->addr_count++] = 0x64500000 + a;
    if (b)
        addrs[t->addr_count++] = 0x64500000 + b;
    n->count = t->addr_count - n->first;
}

static void fill_header(struct boxer_table *t, const struct fake *f) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    t->magic = BOXER_TABLE_MAGIC;
    t->version = BOXER_TABLE_VERSION;
    t->size = BOXER_TABLE_SIZE;
    /* An hour ahead, for nobody beats it; or long ago, for a table to be replaced. */
    t->heartbeat_ns = f->restart_table && f->ops[BOXER_OP_TABLE] < 2
                          ? 1
                          : ((uint64_t)now.tv_sec + 3600) * 1000000000u;
    t->cidr_ip = 0x64500000;
    t->cidr_mask = 0xffff0000;
    t->own_overlay = 0x64500003;
    t->own_underlay = 0x7f440003;
    t->own_id = 3;
    t->overlay_port = f->local_port ? 1 : f->port; /* a NAT has chosen another one */
    t->member_off = sizeof *t;
    t->native_off = t->member_off + BOXER_TABLE_MEMBERS * (uint32_t)sizeof(struct boxer_member);
    t->name_off = t->native_off + BOXER_TABLE_MEMBERS * (uint32_t)sizeof(struct boxer_native);
    t->addr_off = t->name_off + BOXER_TABLE_NAMES * (uint32_t)sizeof(struct boxer_name);
    strcpy(t->own_name, f->restart_table && f->ops[BOXER_OP_TABLE] ? "renewed" : "front");
    strcpy(t->network, "shop");
}

void fake_make_table(struct fake *f) {
    struct boxer_table *t;
    f->memfd = memfd_create("table", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(f->memfd >= 0 && ftruncate(f->memfd, BOXER_TABLE_SIZE) == 0);
    t = mmap(NULL, BOXER_TABLE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, f->memfd, 0);
    CHECK(t != MAP_FAILED);
    if (!f->shrinkable)
        CHECK(fcntl(f->memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
    fill_header(t, f);
    add_member(t, 2, 0x7f440002, BOXER_TRANSPORT_NATIVE);
    add_member(t, 3, 0x7f440003, f->self_transport ? f->self_transport : BOXER_TRANSPORT_NATIVE);
    add_member(t, 4, 0, BOXER_TRANSPORT_HOLD);
    add_member(t, 5, 0x7f440005, BOXER_TRANSPORT_DIRECT);
    add_member(t, 6, 0, BOXER_TRANSPORT_HOLD);
    add_name(t, "front", 3, 0);
    add_name(t, "logic", 4, 5);
    add_name(t, "logic-0", 4, 0);
    add_name(t, "node-2", 2, 0);
    add_name(t, "store", 2, 0);
    f->table = t;
}

/* --- connections brought to a listener of the guest --- */

/* Two ends of a connection: the far one says hello and is the fake's. */
static int make_real(struct fake *f) {
    uint16_t port = 0;
    int listener = fake_listen("127.0.0.1", &port, 4), far, real;
    struct sockaddr_in a = at("127.0.0.1", port);
    (void)f;
    far = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(connect(far, (struct sockaddr *)&a, sizeof a) == 0);
    real = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    CHECK(real >= 0 && send(far, "hello", 5, 0) == 5);
    close(listener);
    fake_spawn(echo, (void *)(intptr_t)far);
    return real;
}

static void signal_listener(struct fake *f, uint32_t ip, uint16_t port, int real) {
    struct sockaddr_in a = at("127.0.0.1", port);
    int fd = make_socket("127.66.0.1", 0);
    if (ip)
        a.sin_addr.s_addr = htonl(ip);
    for (unsigned i = 0; real >= 0 && i < 8; i++) {
        if (f->queued[i].token)
            continue;
        f->queued[i].token = port_of(fd);
        f->queued[i].fd = real;
        break;
    }
    CHECK(connect(fd, (struct sockaddr *)&a, sizeof a) == 0 && send(fd, "!", 1, 0) == 1);
    f->signal = fd;
}

void fake_deliver(struct fake *f, const struct boxer_request *q) {
    for (int i = 0; i < f->deliver; i++) {
        for (int k = 0; k < f->stale_signals; k++)
            signal_listener(f, q->ip, q->port, -1);
        signal_listener(f, q->ip, q->port, make_real(f));
    }
}

int fake_take(struct fake *f, uint16_t token) {
    for (unsigned i = 0; i < 8; i++)
        if (token && f->queued[i].token == token)
            return dup(f->queued[i].fd);
    return -1;
}

/* --- hold and release --- */

/* A listener whose queue is full: what comes then waits in SYN_SENT. */
void fake_plan_hold(struct fake *f, struct boxer_response *r) {
    static const char *const ip = "127.67.0.1";
    uint16_t port = 0;
    struct sockaddr_in a;
    f->hold = fake_listen(ip, &port, 0);
    a = at(ip, port);
    int filler = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(connect(filler, (struct sockaddr *)&a, sizeof a) == 0);
    r->action = BOXER_ACTION_HOLD;
    r->ip = 0x7f430001;
    r->port = port;
}

struct release {
    struct sockaddr_in guest;
    uint16_t hold_port;
    pid_t asleep; /* this guest sleeps until all is over */
};

/* An end in order and then a reset, before the guest runs again. */
static void *end_twice(int fd, pid_t guest) {
    struct linger now = {1, 0};
    CHECK(shutdown(fd, SHUT_WR) == 0);
    usleep(10000);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now) == 0);
    close(fd);
    usleep(10000);
    kill(guest, SIGCONT);
    return NULL;
}

static void *release_later(void *argument) {
    struct release *r = argument;
    int fd = -1, result = -1;
    pid_t asleep = r->asleep;
    for (int i = 0; i < 20 && result != 0; i++) {
        usleep(20000); /* the guest is to be in SYN_SENT */
        if (r->asleep && i == 0)
            kill(r->asleep, SIGSTOP);
        if (fd >= 0)
            close(fd);
        fd = make_socket("127.67.0.1", r->hold_port);
        result = connect(fd, (struct sockaddr *)&r->guest, sizeof r->guest);
    }
    free(r);
    CHECK(result == 0);
    if (asleep)
        return end_twice(fd, asleep);
    return echo((void *)(intptr_t)fd);
}

void fake_release(struct fake *f, const struct boxer_request *q) {
    struct release *r = malloc(sizeof *r);
    r->guest = at("0.0.0.0", q->port);
    r->guest.sin_addr.s_addr = htonl(q->ip);
    r->hold_port = port_of(f->hold);
    r->asleep = f->end_twice ? (pid_t)q->pid : 0;
    fake_spawn(release_later, r);
}
