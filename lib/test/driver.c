/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starts a fake supervisor for each case and a guest with the monitor
 * preloaded, and compares what the supervisor saw.
 *   driver LIBRARY OTHER-LIBRARY GUEST [CASE]
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "fake.h"

struct test {
    const char *name;
    struct fake fake;
    const char *extra; /* one more variable for the guest, and another */
    const char *extra2;
    int plain; /* without the monitor's variables */
    void (*verify)(const struct fake *f);
};

static void saw_listen(const struct fake *f) {
    const struct boxer_request *q = &f->last[BOXER_OP_LISTEN];
    CHECK(f->ops[BOXER_OP_LISTEN] == 2); /* twice the one, never the loopback one */
    CHECK(q->ip == 0 && q->port && q->backlog == 16 && q->flags == 0 && q->cookie);
}

static void saw_native_only(const struct fake *f) {
    CHECK(f->ops[BOXER_OP_TABLE] == 1 && f->ops[BOXER_OP_CONNECT] == 0);
    CHECK(f->ops[BOXER_OP_ADDRESS] == 0);
}

static void saw_prefaces(const struct fake *f) {
    CHECK(f->prefaces == f->ops[BOXER_OP_CONNECT] && f->bad_prefaces == 0);
    CHECK(f->prefaces >= 1 && f->fallbacks == 0 && f->ops[BOXER_OP_HELD] == 0);
}

static void saw_kept_ports(const struct fake *f) {
    saw_prefaces(f);
    CHECK(f->from_kept == f->prefaces);
}

static void saw_nonblocking(const struct fake *f) {
    saw_prefaces(f);
    CHECK(f->last[BOXER_OP_CONNECT].flags == BOXER_FLAG_NONBLOCK);
    CHECK(f->last[BOXER_OP_CONNECT].ip == 0x64500005 && f->last[BOXER_OP_CONNECT].port == 6379);
}

static void saw_holds(const struct fake *f) {
    CHECK(f->ops[BOXER_OP_HELD] == 4 && f->ops[BOXER_OP_CONNECT] == 4);
    CHECK(f->last[BOXER_OP_HELD].ip == 0x7f440003 && f->last[BOXER_OP_HELD].port);
}

static void saw_fallbacks(const struct fake *f) {
    CHECK(f->ops[BOXER_OP_HELD] == 4 && f->fallbacks == 4);
    CHECK(f->prefaces == 0 && f->bad_prefaces == 0);
}

static void saw_called_back(const struct fake *f) {
    CHECK(f->ops[BOXER_OP_HELD] == 4 && f->fallbacks == 4 && f->prefaces == 0);
}

static void saw_bound(const struct fake *f) {
    CHECK(f->fallbacks == 2 && f->ops[BOXER_OP_HELD] == 2 && f->prefaces == 0);
    CHECK(f->last[BOXER_OP_CONNECT].flags & BOXER_FLAG_BOUND);
}

static void saw_acks(const struct fake *f) {
    CHECK(f->ops[BOXER_OP_ACCEPT] == 4 && f->ops[BOXER_OP_ACK] == 2);
    CHECK(f->ops[BOXER_OP_NAK] == 0);
    CHECK((f->last[BOXER_OP_ACCEPT].ip & 0xffff0000) == BOXER_SIGNAL_NET);
    CHECK(f->last[BOXER_OP_ACCEPT].cookie == f->last[BOXER_OP_LISTEN].cookie);
}

static void saw_nak(const struct fake *f) {
    CHECK(f->ops[BOXER_OP_ACCEPT] == 1 && f->ops[BOXER_OP_NAK] == 1);
    CHECK(f->ops[BOXER_OP_ACK] == 0);
}

static void saw_declined(const struct fake *f) {
    char text[16] = {0};
    CHECK(f->ops[BOXER_OP_ACCEPT] == 0);
    CHECK(recv(f->signal, text, sizeof text, MSG_DONTWAIT) == 8);
    CHECK(strcmp(text, BOXER_SIGNAL_DECLINED) == 0);
}

static void saw_v6_listen(const struct fake *f) {
    CHECK(f->last[BOXER_OP_LISTEN].flags == BOXER_FLAG_V6 && f->last[BOXER_OP_LISTEN].ip == 0);
    CHECK(f->last[BOXER_OP_ACCEPT].flags == BOXER_FLAG_V6);
}

static void saw_nothing(const struct fake *f) {
    for (int i = 0; i < OP_COUNT; i++)
        CHECK(f->ops[i] == 0);
}

static void saw_two_tables(const struct fake *f) {
    CHECK(f->ops[BOXER_OP_TABLE] == 2);
}

static void saw_own_listeners(const struct fake *f) {
    const struct boxer_request *q = &f->last[BOXER_OP_LISTEN];
    CHECK(q->ip == 0x7f440003 && q->port >= 64592);
    saw_prefaces(f);
}

#define SHARED .extra = "BOXER_LOOPBACK=127.68.0.3/32"

static struct test tests[] = {
    {.name = "native", .verify = saw_native_only},
    {.name = "native-v6", .verify = saw_native_only},
    {.name = "native-nonblocking", .verify = saw_native_only},
    {.name = "connect-errors", .fake.refuse = ECONNREFUSED},
    {.name = "direct", .verify = saw_prefaces},
    {.name = "direct-nonblocking", .verify = saw_nonblocking},
    {.name = "hold", .verify = saw_holds},
    {.name = "hold",
     .fake.no_preface = 1,
     .extra = "TEST_HOLD_TARGET=100.80.0.5",
     .verify = saw_fallbacks},
    {.name = "hold",
     .fake.no_preface = 2,
     .extra = "TEST_HOLD_TARGET=100.80.0.5",
     .verify = saw_fallbacks},
    /* So small a segment that a part of the preface went out: called back. */
    {.name = "hold",
     .extra = "TEST_HOLD_TARGET=100.80.0.5",
     .extra2 = "TEST_MAXSEG=88",
     .verify = saw_called_back},
    /* From a port that the supervisor keeps; one that is not to be had. */
    {.name = "direct", .fake.local_port = 1, .verify = saw_kept_ports},
    {.name = "direct-nonblocking", .fake.local_port = 1, .verify = saw_kept_ports},
    {.name = "direct-options", .fake.local_port = 1, .verify = saw_kept_ports},
    {.name = "hold",
     .fake.local_port = 2,
     .extra = "TEST_HOLD_TARGET=100.80.0.5",
     .verify = saw_fallbacks},
    {.name = "hold",
     .fake = {.local_port = 1, .no_preface = 2},
     .extra = "TEST_HOLD_TARGET=100.80.0.5",
     .verify = saw_fallbacks},
    {.name = "direct-bound", .fake.local_port = 1, .verify = saw_bound},
    {.name = "bind"},
    {.name = "listen", .verify = saw_listen},
    {.name = "accept-native", .verify = saw_native_only},
    {.name = "accept-signal", .fake = {.deliver = 2, .stale_signals = 1}, .verify = saw_acks},
    {.name = "accept-signal", .fake = {.deliver = 2, .stale_signals = 1, .hand_all = 1}},
    {.name = "accept-signal-v6", .fake.deliver = 1, .verify = saw_v6_listen},
    {.name = "accept-edge", .fake = {.deliver = 2, .stale_signals = 1}},
    {.name = "accept-limit", .fake.deliver = 1, .verify = saw_nak},
    {.name = "accept-declined", .fake.deliver = 1, .verify = saw_declined},
    {.name = "closed-stdio"},
    {.name = "other-sockets"},
    /* A node that shares its loopback; the cases before hold for it as well. */
    {.name = "shared", SHARED, .verify = saw_own_listeners},
    {.name = "native", SHARED, .verify = saw_native_only},
    {.name = "native-nonblocking", SHARED, .verify = saw_native_only},
    {.name = "direct", SHARED, .verify = saw_prefaces},
    {.name = "direct", SHARED, .fake.local_port = 1, .verify = saw_kept_ports},
    {.name = "direct-nonblocking", SHARED, .verify = saw_nonblocking},
    {.name = "hold", SHARED, .verify = saw_holds},
    {.name = "binding", SHARED},
    {.name = "pointers", SHARED},
    {.name = "accept-native", SHARED, .verify = saw_native_only},
    {.name = "accept-signal", SHARED, .fake = {.deliver = 2, .stale_signals = 1}},
    {.name = "accept-signal-v6", SHARED, .fake.deliver = 1},
    {.name = "accept-limit", SHARED, .fake.deliver = 1, .verify = saw_nak},
    {.name = "self", SHARED, .fake.self_transport = BOXER_TRANSPORT_DIRECT},
    {.name = "self", SHARED, .fake.self_transport = BOXER_TRANSPORT_HOLD},
    {.name = "syscall", SHARED},
    {.name = "fastopen", SHARED, .extra2 = "TEST_TARGET=100.80.0.2", .verify = saw_native_only},
    {.name = "hosts"},
    {.name = "addrinfo"},
    {.name = "hostname"},
    {.name = "exec"},
    {.name = "shell"},
    {.name = "addrinfo-a"},
    {.name = "binding"},
    {.name = "pointers", .verify = saw_native_only},
    {.name = "datagrams"},
    {.name = "limits"},
    {.name = "changed-root"},
    {.name = "refused-later", .fake.refuse = ECONNREFUSED},
    {.name = "waiting", .fake.no_release = 1},
    {.name = "ended-early", .fake.end_twice = 1},
    {.name = "interrupted"},
    {.name = "self", .fake.self_transport = BOXER_TRANSPORT_DIRECT, .verify = saw_prefaces},
    {.name = "self", .fake.self_transport = BOXER_TRANSPORT_HOLD},
    {.name = "syscall", .verify = saw_native_only},
    {.name = "fastopen", .extra = "TEST_TARGET=100.80.0.2", .verify = saw_native_only},
    {.name = "fastopen", .extra = "TEST_TARGET=100.80.0.5", .verify = saw_prefaces},
    {.name = "fastopen", .extra = "TEST_TARGET=100.80.0.4"},
    {.name = "fastopen", .extra = "TEST_TARGET=100.80.0.5", .fake.no_preface = 1},
    {.name = "fastopen-errors", .fake.refuse = ECONNREFUSED},
    {.name = "threads"},
    {.name = "cancel"},
    {.name = "plain", .plain = 1, .verify = saw_nothing},
    {.name = "silent", .fake.mode = FAKE_SILENT},
    {.name = "supervisor-gone"},
    {.name = "no-table", .fake.mode = FAKE_WRONG_TOKEN},
    {.name = "no-table", .fake.mode = FAKE_DEAF},
    {.name = "no-table", .fake.shrinkable = 1},
    {.name = "hostile", .fake.mode = FAKE_HOSTILE},
    {.name = "renewed", .fake.restart_table = 1, .verify = saw_two_tables},
};

/* A second library for LD_PRELOAD, empty. */
static const char *other_library;

struct pipes {
    int in[2], out[2];
};

static void become_guest(const struct test *t, const char *library, const char *guest,
                         const struct pipes *p) {
    char preload[600], lib[600], ipc[200], port[64], other[600];
    char *env[12] = {
        preload, port, t->extra ? (char *)t->extra : "X=", t->extra2 ? (char *)t->extra2 : "Y=",
        other,   NULL};
    char *argv[] = {(char *)guest, (char *)t->name, NULL};
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", library);
    snprintf(lib, sizeof lib, "BOXER_LIB=%s", library);
    snprintf(ipc, sizeof ipc, "BOXER_IPC=%s/%s/%s", t->fake.name, FAKE_MONITOR_TOKEN,
             FAKE_SUPERVISOR_TOKEN);
    snprintf(other, sizeof other, "TEST_OTHER=%s", other_library);
    snprintf(port, sizeof port, "TEST_ECHO_PORT=%d", t->fake.echo_port);
    if (!t->plain) {
        env[5] = lib;
        env[6] = ipc;
        env[7] = "BOXER_NETWORK=shop";
        env[8] = "BOXER_CIDR=100.80.0.0/16";
    }
    dup2(p->in[0], 0);
    dup2(p->out[1], 1);
    execve(guest, argv, env);
    _exit(127);
}

/* A guest that writes asks for its supervisor to be gone. */
static void serve_stdio(struct test *t, const struct pipes *p) {
    char byte;
    if (read(p->out[0], &byte, 1) == 1) {
        fake_stop(&t->fake);
        CHECK(write(p->in[1], &byte, 1) == 1);
    }
}

static int run(struct test *t, const char *library, const char *guest) {
    struct pipes p;
    int status;
    pid_t pid;
    CHECK(pipe2(p.in, O_CLOEXEC) == 0 && pipe2(p.out, O_CLOEXEC) == 0);
    fake_start(&t->fake);
    pid = fork();
    if (pid == 0)
        become_guest(t, library, guest, &p);
    close(p.in[0]);
    close(p.out[1]);
    serve_stdio(t, &p);
    CHECK(waitpid(pid, &status, 0) == pid);
    usleep(20000); /* the last frames have no answer to wait for */
    if (status == 0 && t->verify)
        t->verify(&t->fake);
    fake_stop(&t->fake);
    close(p.in[1]);
    close(p.out[0]);
    return status;
}

int main(int argc, char **argv) {
    int failed = 0, ran = 0;
    if (argc < 4) {
        fprintf(stderr, "usage: %s LIBRARY OTHER-LIBRARY GUEST [CASE]\n", argv[0]);
        return 2;
    }
    other_library = argv[2];
    signal(SIGPIPE, SIG_IGN);
    for (unsigned i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        int status;
        if (argc > 4 && strcmp(argv[4], tests[i].name) != 0)
            continue;
        ran++;
        alarm(20); /* nothing may hang */
        status = run(&tests[i], argv[1], argv[3]);
        if (status)
            printf("FAIL %s (%u): status 0x%x\n", tests[i].name, i, status);
        failed += status != 0;
    }
    printf("%s: %d of %d cases passed\n", argv[3], ran - failed, ran);
    return failed || !ran;
}
