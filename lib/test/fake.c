/* SPDX-License-Identifier: Apache-2.0 */
/* The fake supervisor's side of the wire protocol. */
#include "fake.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "check.h"

struct conversation {
    struct fake *fake;
    int fd;
};

void fake_spawn(void *(*run)(void *), void *argument) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run, argument) == 0);
    pthread_detach(thread);
}

static void reply(int to, const void *data, size_t size, const int *fds, int count) {
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(4 * sizeof(int))];
    } control = {0};
    struct iovec part = {(void *)data, size};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
    if (count) {
        m.msg_control = &control;
        m.msg_controllen = CMSG_SPACE(count * sizeof(int));
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(&control.header), fds, count * sizeof(int));
    }
    sendmsg(to, &m, MSG_NOSIGNAL);
}

static void answer_connect(struct fake *f, const struct boxer_request *q,
                           struct boxer_response *r) {
    if ((q->ip & 0xff) == 6) {
        r->error = f->refuse;
    } else if (((q->ip & 0xff) == 5 ||
                ((q->ip & 0xff) == 3 && f->self_transport == BOXER_TRANSPORT_DIRECT)) &&
               !(q->flags & BOXER_FLAG_FALLBACK)) {
        r->action = BOXER_ACTION_DIRECT;
        r->ip = 0x7f440005; /* 127.68.0.5 */
        r->port = f->port;
        r->preface_len = f->no_preface == 1 ? 0 : 96;
        if (f->no_preface == 2)
            r->ip = 0xffffffff;
        if (f->local_port) {
            fake_keep_port(f);
            r->local_port = f->kept_port;
        }
        for (unsigned i = 0; i < 96; i++)
            r->preface[i] = (uint8_t)i;
    } else {
        f->fallbacks += (q->flags & BOXER_FLAG_FALLBACK) != 0;
        fake_plan_hold(f, r);
    }
}

static void answer_address(struct fake *f, struct boxer_response *r) {
    (void)f;
    r->family = AF_INET;
    r->local_ip = 0x64500003;
    r->local_port = 1234;
    r->peer_ip = 0x64500005;
    r->peer_port = 6379;
}

/* Fills r for q; gives the descriptor to send along, or -1. */
static int answer(struct fake *f, const struct boxer_request *q, struct boxer_response *r) {
    int fd = -1;
    if (q->op == BOXER_OP_TABLE) {
        if (f->restart_table && f->ops[BOXER_OP_TABLE] == 2)
            fake_make_table(f);
        fd = dup(f->memfd);
    } else if (q->op == BOXER_OP_CONNECT) {
        answer_connect(f, q, r);
    } else if (q->op == BOXER_OP_ADDRESS) {
        answer_address(f, r);
    } else if (q->op == BOXER_OP_ACCEPT) {
        fd = fake_take(f, q->port);
        r->error = fd < 0 ? ENOENT : 0;
        r->local_ip = 0x64500003;
        r->peer_ip = 0x64500009;
        r->peer_port = 5555;
    }
    return fd;
}

static void send_nonsense(int to) {
    static unsigned seed = 1;
    uint8_t junk[400];
    size_t size = rand_r(&seed) % sizeof junk;
    int fds[3] = {0, 1, 2}, count = rand_r(&seed) % 4;
    for (size_t i = 0; i < sizeof junk; i++)
        junk[i] = (uint8_t)rand_r(&seed);
    if (rand_r(&seed) % 2) { /* the right frame around nonsense */
        struct boxer_response *r = (struct boxer_response *)(void *)junk;
        size = sizeof *r;
        r->magic = BOXER_RESPONSE_MAGIC;
        r->version = BOXER_WIRE_VERSION;
        r->op = (uint16_t)(1 + rand_r(&seed) % 8);
        r->error = rand_r(&seed) % 3 ? 0 : rand_r(&seed) % 200;
        r->action = rand_r(&seed) % 5;
        r->preface_len = rand_r(&seed) % 140;
        for (unsigned i = 0; i < BOXER_TOKEN_LEN; i++)
            r->token[i] = (uint8_t)(0x10 + i);
    }
    reply(to, junk, size, fds, count);
}

static void respond(struct fake *f, int to, const struct boxer_request *q) {
    struct boxer_response r = {0};
    int fds[3], count = 0;
    r.magic = BOXER_RESPONSE_MAGIC;
    r.version = BOXER_WIRE_VERSION;
    r.op = q->op;
    for (unsigned i = 0; i < BOXER_TOKEN_LEN; i++)
        r.token[i] = (uint8_t)((f->mode == FAKE_WRONG_TOKEN ? 0x20 : 0x10) + i);
    fds[0] = answer(f, q, &r);
    if (fds[0] >= 0)
        count = 1;
    if (count && f->hand_all && q->op == BOXER_OP_ACCEPT) {
        fds[1] = fds[2] = fds[0];
        count = 3;
    }
    reply(to, &r, sizeof r, fds, count);
    if (count)
        close(fds[0]);
}

static int proves_itself(const struct boxer_request *q) {
    for (unsigned i = 0; i < BOXER_TOKEN_LEN; i++)
        if (q->token[i] != i)
            return 0;
    return q->magic == BOXER_REQUEST_MAGIC && q->version == BOXER_WIRE_VERSION && q->pid;
}

static void handle(struct fake *f, int fd, const struct boxer_request *q) {
    if (f->mode == FAKE_SILENT && q->op != BOXER_OP_TABLE)
        return;
    if (f->mode == FAKE_HOSTILE && (q->op != BOXER_OP_TABLE || f->ops[BOXER_OP_TABLE] != 1)) {
        send_nonsense(fd);
        return;
    }
    if (q->op == BOXER_OP_HELD && !f->no_release)
        fake_release(f, q);
    else if (q->op != BOXER_OP_HELD && q->op != BOXER_OP_ACK && q->op != BOXER_OP_NAK)
        respond(f, fd, q);
    if (q->op == BOXER_OP_LISTEN)
        fake_deliver(f, q);
}

static void *converse(void *argument) {
    struct conversation *c = argument;
    struct fake *f = c->fake;
    struct boxer_request q;
    while (recv(c->fd, &q, sizeof q, 0) == (ssize_t)sizeof q) {
        pthread_mutex_lock(&f->lock);
        CHECK(proves_itself(&q));
        CHECK(q.op < OP_COUNT);
        f->ops[q.op]++;
        f->last[q.op] = q;
        handle(f, c->fd, &q);
        pthread_mutex_unlock(&f->lock);
    }
    close(c->fd);
    free(c);
    return NULL;
}

static void *serve(void *argument) {
    struct fake *f = argument;
    for (;;) {
        struct conversation *c = malloc(sizeof *c);
        c->fake = f;
        c->fd = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC);
        if (c->fd < 0) {
            free(c);
            return NULL;
        }
        fake_spawn(converse, c);
    }
}

void fake_start(struct fake *f) {
    static int serial;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    socklen_t len;
    pthread_mutex_init(&f->lock, NULL);
    snprintf(f->name, sizeof f->name, "boxer-test-%d-%d", (int)getpid(), serial++);
    memcpy(a.sun_path + 1, f->name, strlen(f->name));
    len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(f->name));
    f->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    CHECK(bind(f->listener, (struct sockaddr *)&a, len) == 0 && listen(f->listener, 64) == 0);
    f->overlay = fake_listen("127.68.0.5", &f->port, 64);
    f->echo = fake_listen("127.68.0.2", &f->echo_port, 4096); /* a full queue costs a second */
    f->hold = -1;
    fake_make_table(f);
    if (f->mode != FAKE_DEAF)
        fake_spawn(serve, f);
    fake_spawn(fake_overlay_server, f);
    fake_spawn(fake_echo_server, f);
}

void fake_stop(struct fake *f) {
    shutdown(f->listener, SHUT_RDWR);
    close(f->listener);
}
