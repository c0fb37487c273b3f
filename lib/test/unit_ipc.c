/* SPDX-License-Identifier: Apache-2.0 */
/* The codec against the golden frames, conversations, and hostile ones. */
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "unit.h"

#include "../ipc.h"

static void golden_identity(struct identity *id) {
    CHECK(
        identity_parse("boxer-x/000102030405060708090a0b0c0d0e0f/"
                       "101112131415161718191A1B1C1D1E1F",
                       id));
}

static void test_identity(void) {
    static const char *const bad[] = {
        "",
        "/",
        "name",
        "name/00",
        "/000102030405060708090a0b0c0d0e0f/",
        "n/000102030405060708090a0b0c0d0e0f/101112131415161718191a1b1c1d1e1",
        "n/000102030405060708090a0b0c0d0e0f/101112131415161718191a1b1c1d1e1f0",
        "n/000102030405060708090a0b0c0d0e0fx101112131415161718191a1b1c1d1e1f",
        "n/g00102030405060708090a0b0c0d0e0f/101112131415161718191a1b1c1d1e1f"};
    struct identity id;
    char longest[300];
    golden_identity(&id);
    CHECK(id.name_len == 7 && memcmp(id.name, "boxer-x", 7) == 0);
    CHECK(id.monitor[15] == 0x0f && id.supervisor[15] == 0x1f);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK(!identity_parse(bad[i], &id));
    memset(longest, 'n', sizeof longest);
    strcpy(longest + 107, "/000102030405060708090a0b0c0d0e0f/101112131415161718191a1b1c1d1e1f");
    CHECK(identity_parse(longest, &id) && id.name_len == 107);
    memset(longest, 'n', 108);
    strcpy(longest + 108, "/000102030405060708090a0b0c0d0e0f/101112131415161718191a1b1c1d1e1f");
    CHECK(!identity_parse(longest, &id));
}

static void test_cidr(void) {
    static const char *const bad[] = {
        "",           "100.80.0.0",   "100.80.0.0/",       "100.80.0/16",
        "1.2.3.4/33", "100.80.0.0/0", "1.2.3.256/8",       "1.2.3.4/16x",
        "1..3.4/8",   "1.2.3.4.5/8",  "1.2.3.4/9999999999"};
    uint32_t ip = 1, mask = 1;
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK(!cidr_parse(bad[i], &ip, &mask) && ip == 1 && mask == 1);
    CHECK(cidr_parse("100.80.3.4/16", &ip, &mask) && ip == 0x64500000 && mask == 0xffff0000);
    CHECK(cidr_parse("1.2.3.4/32", &ip, &mask) && ip == 0x01020304 && mask == 0xffffffff);
}

static void test_request(void) {
    struct boxer_request q = {0}, *golden;
    struct identity id;
    size_t size;
    golden = unit_load("request.bin", &size);
    CHECK(size == sizeof q);
    golden_identity(&id);
    q.op = BOXER_OP_CONNECT;
    q.cookie = 0x1122334455667788;
    q.flags = BOXER_FLAG_NONBLOCK | BOXER_FLAG_V6;
    q.ip = 0x64500007;
    q.port = 6379;
    q.backlog = 511;
    request_seal(&q, &id);
    CHECK(q.pid == (uint32_t)getpid());
    q.pid = 4242;
    CHECK(q.cpu >= 1 && q.cpu <= sysconf(_SC_NPROCESSORS_CONF));
    q.cpu = 3;
    CHECK(memcmp(&q, golden, sizeof q) == 0);
    free(golden);
}

static void test_response(void) {
    struct boxer_response *r;
    struct identity id;
    size_t size;
    r = unit_load("response.bin", &size);
    golden_identity(&id);
    CHECK(response_check(r, (long)size, BOXER_OP_CONNECT, &id) == 0);
    CHECK(r->action == BOXER_ACTION_DIRECT && r->ip == 0x64400102 && r->port == 7717);
    CHECK(r->family == AF_INET && r->local_ip == 0x64500003 && r->local_port == 40000);
    CHECK(r->peer_ip == 0x64500007 && r->peer_port == 6379 && r->preface_len == 96);
    CHECK(r->preface[0] == 0 && r->preface[95] == 95);
    CHECK(response_check(r, (long)size - 1, BOXER_OP_CONNECT, &id) == -EPROTO);
    CHECK(response_check(r, (long)size, BOXER_OP_ACCEPT, &id) == -EPROTO);
    r->preface_len = BOXER_PREFACE_MAX + 1;
    CHECK(response_check(r, (long)size, BOXER_OP_CONNECT, &id) == -EPROTO);
    r->preface_len = 96;
    r->error = -1;
    CHECK(response_check(r, (long)size, BOXER_OP_CONNECT, &id) == -EPROTO);
    r->error = 0;
    r->token[3] ^= 1;
    CHECK(response_check(r, (long)size, BOXER_OP_CONNECT, &id) == -EPROTO);
    free(r);
}

static void send_with_fds(int to, const void *data, size_t size, int fd, int count) {
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(16 * sizeof(int))];
    } control = {0};
    struct iovec part = {(void *)data, size};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
    if (count) {
        m.msg_control = &control;
        m.msg_controllen = CMSG_SPACE(count * sizeof(int));
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(count * sizeof(int));
        for (int i = 0; i < count; i++)
            memcpy(CMSG_DATA(&control.header) + i * sizeof fd, &fd, sizeof fd);
    }
    CHECK(sendmsg(to, &m, MSG_NOSIGNAL) >= 0);
}

static int next_descriptor(void) {
    int fd = dup(0);
    close(fd);
    return fd;
}

/* Random frames and up to 12 descriptors with each: an error or a frame, no leak. */
void test_hostile_frames(unsigned rounds) {
    int pair[2], zero = open("/dev/null", O_RDONLY | O_CLOEXEC), lowest;
    struct identity id;
    size_t size;
    struct boxer_response *good = unit_load("response.bin", &size);
    golden_identity(&id);
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    lowest = next_descriptor();
    for (unsigned i = 0; i < rounds; i++) {
        struct ipc c = {pair[0], clock_now() + SECOND, &id};
        struct boxer_response r;
        uint8_t junk[300];
        int fd, error, wanted = rand() % 2;
        for (size_t k = 0; k < sizeof junk; k++)
            junk[k] = (uint8_t)rand();
        if (rand() % 2) {
            memcpy(junk, good, sizeof *good);
            junk[rand() % sizeof *good] ^= (uint8_t)(rand() % 3);
        }
        send_with_fds(pair[1], junk, rand() % 2 ? sizeof *good : 1 + (size_t)rand() % sizeof junk,
                      zero, rand() % 13);
        error = ipc_receive(&c, BOXER_OP_CONNECT, &r, wanted ? &fd : NULL);
        CHECK(error == 0 || error == -EPROTO || error == -EMFILE);
        if (wanted && fd >= 0) {
            CHECK(error == 0);
            close(fd);
        }
        CHECK(next_descriptor() == lowest);
    }
    free(good);
    close(zero);
    close(pair[0]);
    close(pair[1]);
}

static void test_deadlines(void) {
    struct boxer_request q = {.op = BOXER_OP_TABLE};
    struct boxer_response r;
    struct identity id;
    struct ipc c;
    golden_identity(&id);
    CHECK(ipc_once(&id, &q, &r, NULL, SECOND) == -ECONNREFUSED);
    CHECK(ipc_open(&c, &id, 0) < 0);
}

void test_ipc(void) {
    test_identity();
    test_cidr();
    test_request();
    test_response();
    test_deadlines();
}
