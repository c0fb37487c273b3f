/* SPDX-License-Identifier: Apache-2.0 */
/* Talking to the supervisor over an abstract SOCK_SEQPACKET socket. */
#include "ipc.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/un.h>

#include "mem.h"
#include "sys.h"

enum { HIGH_FD = 512, MIDDLE_FD = 64, LOW_FD = 3, FDS_MAX = 8 };

/*
 * libc knows without a system call. Weak and without a version: any libc has it.
 */
extern int libc_sched_getcpu(void) __asm__("sched_getcpu") __attribute__((weak));

static uint16_t current_cpu(void) {
    int cpu = libc_sched_getcpu ? libc_sched_getcpu() : -1;
    return cpu < 0 || cpu >= UINT16_MAX ? 0 : (uint16_t)(cpu + 1);
}

void request_seal(struct boxer_request *q, const struct identity *id) {
    q->magic = BOXER_REQUEST_MAGIC;
    q->version = BOXER_WIRE_VERSION;
    memcpy(q->token, id->monitor, BOXER_TOKEN_LEN);
    q->pid = (uint32_t)sys_getpid();
    q->cpu = current_cpu();
}

int response_check(const struct boxer_response *r, long size, unsigned op,
                   const struct identity *id) {
    if (size != (long)sizeof *r || r->magic != BOXER_RESPONSE_MAGIC ||
        r->version != BOXER_WIRE_VERSION || r->op != op || r->preface_len > BOXER_PREFACE_MAX)
        return -EPROTO;
    if (memcmp(r->token, id->supervisor, BOXER_TOKEN_LEN) != 0)
        return -EPROTO; /* somebody else took the name after the supervisor died */
    return r->error < 0 || r->error > 4095 ? -EPROTO : 0;
}

/*
 * Out of the way of a guest that counts on the lowest numbers, and never on
 * 0, 1 or 2. Lower where the limit on descriptors is small.
 */
static int move_high(int fd) {
    static const int floors[] = {HIGH_FD, MIDDLE_FD, LOW_FD};
    long high = -EMFILE;
    for (unsigned i = 0; i < sizeof floors / sizeof floors[0] && high < 0; i++)
        high = sys_fcntl(fd, F_DUPFD_CLOEXEC, floors[i]);
    if (high < 0 && fd >= LOW_FD)
        return fd;
    sys_close(fd);
    return (int)high;
}

static int set_timeouts(struct ipc *c) {
    int64_t left = c->deadline - clock_now();
    struct timeval t = {left / SECOND, left % SECOND / 1000};
    if (left <= 0)
        return -ETIMEDOUT;
    if (t.tv_sec == 0 && t.tv_usec == 0)
        t.tv_usec = 1; /* zero would mean for ever */
    sys_setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
    sys_setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    return 0;
}

/* After a failed call: 0 to try again, else the error to give up with. */
static int again(struct ipc *c, long result) {
    if (result == -EINTR)
        return set_timeouts(c);
    return result == -EAGAIN ? -ETIMEDOUT : (int)result;
}

static int ipc_dial(struct ipc *c) {
    struct sockaddr_un a;
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + c->identity->name_len);
    int error = set_timeouts(c);
    a.sun_family = AF_UNIX;
    a.sun_path[0] = 0;
    memcpy(a.sun_path + 1, c->identity->name, c->identity->name_len);
    while (!error) {
        long r = sys_connect(c->fd, &a, len);
        if (r >= 0 || r == -EISCONN)
            return 0;
        error = again(c, r);
    }
    return error;
}

int ipc_open(struct ipc *c, const struct identity *id, int64_t patience) {
    long fd = sys_socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    int error;
    c->fd = -1;
    if (fd < 0)
        return (int)fd;
    c->fd = move_high((int)fd);
    if (c->fd < 0)
        return c->fd;
    c->identity = id;
    c->deadline = clock_now() + patience;
    error = ipc_dial(c);
    if (error)
        ipc_close(c);
    return error;
}

void ipc_close(struct ipc *c) {
    if (c->fd >= 0)
        sys_close(c->fd);
    c->fd = -1;
}

int ipc_send(struct ipc *c, struct boxer_request *q) {
    int error = 0;
    request_seal(q, c->identity);
    while (!error) {
        long n = sys_sendto(c->fd, q, sizeof *q, MSG_NOSIGNAL, NULL, 0);
        if (n >= 0)
            return n == (long)sizeof *q ? 0 : -EPROTO;
        error = again(c, n);
    }
    return error;
}

/* Takes the first descriptor of a message and closes all others. */
static int take_fds(struct msghdr *m) {
    int taken = -1;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
        size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS || h->cmsg_len < CMSG_LEN(0))
            continue;
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + i * sizeof fd, sizeof fd);
            if (taken < 0)
                taken = fd;
            else
                sys_close(fd);
        }
    }
    return taken;
}

int ipc_receive(struct ipc *c, unsigned op, struct boxer_response *r, int *fd) {
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
    } control;
    struct iovec part = {r, sizeof *r};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control};
    int taken, error = 0, ends = 0;
    long n;
    /*
     * The kernel looks into the queue and then whether the peer is gone: what
     * was sent between the two looks is still there, hence a second one.
     */
    do {
        m.msg_controllen = sizeof control;
        n = sys_recvmsg(c->fd, &m, MSG_CMSG_CLOEXEC);
        if (n < 0)
            error = again(c, n);
    } while ((n < 0 && !error) || (n == 0 && ends++ == 0));
    if (n < 0)
        return error;
    taken = take_fds(&m);
    error = m.msg_flags & MSG_TRUNC ? -EPROTO : response_check(r, n, op, c->identity);
    if (!error && (m.msg_flags & MSG_CTRUNC))
        error = -EMFILE;
    if (taken >= 0 && (error || !fd)) {
        sys_close(taken);
        taken = -1;
    }
    if (fd)
        *fd = taken;
    return error;
}

int ipc_ask(struct ipc *c, struct boxer_request *q, struct boxer_response *r, int *fd) {
    int error = ipc_send(c, q);
    if (fd)
        *fd = -1;
    return error ? error : ipc_receive(c, q->op, r, fd);
}

int ipc_once(const struct identity *id, struct boxer_request *q, struct boxer_response *r, int *fd,
             int64_t patience) {
    struct ipc c;
    int error = ipc_open(&c, id, patience);
    if (error)
        return error;
    error = ipc_ask(&c, q, r, fd);
    ipc_close(&c);
    return error;
}
