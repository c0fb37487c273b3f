/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader of responses: any packet, with any number of descriptors, gives a
 * response or an error, and leaves no descriptor behind.
 */
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"

#include "../ipc.h"

enum { FDS = 13 };

static int pair[2], extra[FDS], lowest;
static struct identity identity;

static int next_descriptor(void) {
    int fd = dup(0);
    close(fd);
    return fd;
}

static void start(void) {
    if (lowest)
        return;
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    for (int i = 0; i < FDS; i++)
        CHECK((extra[i] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0);
    CHECK(identity_parse("fuzz/000102030405060708090a0b0c0d0e0f/101112131415161718191a1b1c1d1e1f",
                         &identity));
    lowest = next_descriptor();
}

static void send_frame(const void *data, size_t size, unsigned fds) {
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof extra)];
    } control = {0};
    struct iovec part = {(void *)data, size};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
    if (fds) {
        m.msg_control = &control;
        m.msg_controllen = CMSG_SPACE(fds * sizeof *extra);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(fds * sizeof *extra);
        memcpy(CMSG_DATA(&control.header), extra, fds * sizeof *extra);
    }
    CHECK(sendmsg(pair[1], &m, MSG_NOSIGNAL) == (ssize_t)size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input in = {data, size};
    unsigned op = take(&in, 1) % 10, fds = take(&in, 1) % (FDS + 1), wants = take(&in, 1) & 1;
    struct ipc c = {0, 0, &identity};
    struct boxer_response r;
    int fd = -1, error;
    if (in.left > 4096 || !in.left) /* an empty packet is the end of a conversation */
        return 0;
    start();
    c.fd = pair[0];
    c.deadline = clock_now() + SECOND;
    send_frame(in.at, in.left, fds);
    error = ipc_receive(&c, op, &r, wants ? &fd : NULL);
    CHECK(error == 0 || error == -EPROTO || error == -EMFILE);
    if (!error)
        CHECK(r.preface_len <= BOXER_PREFACE_MAX && r.error >= 0 && r.error <= 4095);
    CHECK(fd < 0 || (!error && fds));
    if (fd >= 0)
        close(fd);
    CHECK(next_descriptor() == lowest);
    return 0;
}
