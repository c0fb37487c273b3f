// SPDX-License-Identifier: Apache-2.0
/*
 * The measuring program of the benchmark. Built twice from this one file. Linked
 * dynamically it is what is measured: as an ordinary guest, which the process
 * monitor interposes, and, run on the same host over the same wires without the
 * monitor, as the native baseline. Linked statically (-DPROBE_STATIC) nothing can
 * be preloaded into it, so that it can start the baseline.
 *
 *   bare PROGRAM ARGS...             exec PROGRAM without LD_PRELOAD
 *   serve PORT                       serve
 *   connect HOST PORT COUNT MAX_MS   socket, connect, first byte: the median
 *   rtt HOST PORT BYTES COUNT        round trips on one open connection
 *   agent HOST PORT NAME             measure what a hub asks for, until it ends
 *   hub PORT COUNT                   pass questions on to COUNT agents, one after the other
 *   stream HOST PORT MS              bytes per second over one open connection
 *   await HOST PORT                  until somebody greets
 *   crowd PORT COUNT                 serve with COUNT processes on one listener
 *   flood HOST PORT COUNT MS         connections per second of COUNT processes
 *   lookup HOST COUNT                the first lookup of this process, then COUNT more
 *   spawn COUNT CMD...               vfork, exec, exit, wait
 *   fork COUNT CMD...                fork, exec, exit, wait
 *   launch COUNT CMD...              from before exec of CMD to its "now"
 *   now | nothing
 *
 * A server greets with one byte. Then a client hangs up, or sends 'r' and a size
 * (blocks of that size are echoed) or 's' (bytes are swallowed and counted).
 * Results are one JSON object a line, with PROBE_LABEL, and with every sample if
 * PROBE_SAMPLES is set; PROBE_CPU pins, PROBE_PAUSE_US makes `connect` wait before
 * each connection, or before PROBE_BURST of them; with PROBE_BIND it binds first.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <linux/sockios.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TIMEOUT_S = 20, CHUNK = 128 * 1024, MIN_SAMPLES = 20, WARM_MS = 50 };

extern char **environ;
static int bound; /* a client's sockets, before they connect */
/* At a page: the kernel copies slower to odd places, and both builds must be equal. */
static char chunk[CHUNK] __attribute__((aligned(4096)));

static void die(const char *format, ...) {
    va_list args;
    int cause = errno;
    va_start(args, format);
    fprintf(stderr, "probe: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, ": %s\n", strerror(cause));
    va_end(args);
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The first tenth warms caches up and does not count. */
static void report_latency(uint64_t *samples, size_t n) {
    const char *label = getenv("PROBE_LABEL");
    size_t skip = n / 10;
    samples += skip;
    n -= skip;
    if (n == 0) {
        errno = ENODATA;
        die("no samples");
    }
    qsort(samples, n, sizeof *samples, ascending);
    printf("{\"label\":\"%s\",\"n\":%zu,\"min\":%llu,\"p50\":%llu,\"p90\":%llu,\"max\":%llu",
           label ? label : "", n, (unsigned long long)samples[0],
           (unsigned long long)samples[n / 2], (unsigned long long)samples[n * 9 / 10],
           (unsigned long long)samples[n - 1]);
    for (size_t i = 0; getenv("PROBE_SAMPLES") && i < n; i++) {
        printf("%s%llu", i ? "," : ",\"samples\":[", (unsigned long long)samples[i]);
    }
    puts(getenv("PROBE_SAMPLES") ? "]}" : "}");
    fflush(stdout);
}

static uint64_t *sample_room(long count) {
    uint64_t *room;
    if (count < 1) {
        errno = EINVAL;
        die("count %ld", count);
    }
    room = calloc((size_t)count, sizeof *room);
    if (!room) {
        die("memory for %ld samples", count);
    }
    return room;
}

static void pin(void) {
    const char *cpu = getenv("PROBE_CPU");
    cpu_set_t set;
    if (!cpu || !*cpu) {
        return;
    }
    CPU_ZERO(&set);
    CPU_SET((size_t)atoi(cpu), &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) {
        die("pin to cpu %s", cpu);
    }
}

/* ---- sockets ---- */

static struct sockaddr_in resolve(const char *host, const char *port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET, host, &to.sin_addr) == 1) {
        return to;
    }
#ifdef PROBE_STATIC
    errno = EINVAL;
    die("%s: the static probe takes addresses only", host);
#else
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
    int err = getaddrinfo(host, port, &hints, &found);
    if (err != 0) {
        fprintf(stderr, "probe: look up %s: %s\n", host, gai_strerror(err));
        exit(1);
    }
    memcpy(&to, found->ai_addr, sizeof to);
    freeaddrinfo(found);
#endif
    return to;
}

static void limit_waiting(int fd) {
    struct timeval t = {.tv_sec = TIMEOUT_S};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
}

/* Connects and takes the greeting. */
static int dial(const struct sockaddr_in *to) {
    char byte;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        die("socket");
    }
    if (bound) {
        struct sockaddr_in any = {.sin_family = AF_INET};
        if (bind(fd, (struct sockaddr *)&any, sizeof any) != 0) {
            die("bind");
        }
    }
    if (connect(fd, (const struct sockaddr *)to, sizeof *to) != 0) {
        die("connect to %s:%d", inet_ntoa(to->sin_addr), ntohs(to->sin_port));
    }
    if (recv(fd, &byte, 1, 0) != 1) {
        die("greeting from %s:%d", inet_ntoa(to->sin_addr), ntohs(to->sin_port));
    }
    return fd;
}

/* Returns 0 when all was read, -1 at the end of the stream or an error. */
static int read_all(int fd, void *to, size_t size) {
    size_t done = 0;
    while (done < size) {
        ssize_t n = recv(fd, (char *)to + done, size - done, 0);
        if (n <= 0) {
            return -1;
        }
        done += (size_t)n;
    }
    return 0;
}

static int write_all(int fd, const void *from, size_t size) {
    size_t done = 0;
    while (done < size) {
        ssize_t n = send(fd, (const char *)from + done, size - done, MSG_NOSIGNAL);
        if (n <= 0) {
            return -1;
        }
        done += (size_t)n;
    }
    return 0;
}

/* ---- server ---- */

static void echo_blocks(int fd) {
    uint32_t size;
    if (read_all(fd, &size, sizeof size) != 0 || size == 0 || size > CHUNK) {
        return;
    }
    while (read_all(fd, chunk, size) == 0 && write_all(fd, chunk, size) == 0) {
    }
}

static void swallow(int fd) {
    uint64_t total = 0;
    ssize_t n;
    while ((n = recv(fd, chunk, sizeof chunk, 0)) > 0) {
        total += (uint64_t)n;
    }
    write_all(fd, &total, sizeof total);
}

static void answer(int fd) {
    char what;
    limit_waiting(fd);
    if (send(fd, "!", 1, MSG_NOSIGNAL) == 1 && recv(fd, &what, 1, 0) == 1) {
        if (what == 'r') {
            echo_blocks(fd);
        } else if (what == 's') {
            swallow(fd);
        }
    }
    close(fd);
}

static int listen_on(const char *port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(listener, 128) != 0) {
        die("listen on port %s", port);
    }
    return listener;
}

static void serve(int listener) {
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd >= 0) {
            answer(fd);
        } else if (errno != EINTR && errno != ECONNABORTED) {
            die("accept");
        }
    }
}

/* The parent serves as well; if it ends the others end with it. */
static void crowd(const char *port, int count) {
    int listener = listen_on(port);
    for (int i = 1; i < count; i++) {
        pid_t pid = fork();
        if (pid < 0) {
            die("fork");
        }
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            break;
        }
    }
    serve(listener);
}

/* ---- clients ---- */

/*
 * Resets instead of closing: thousands of connections in TIME_WAIT would use up
 * the ports of the client, and the search for a free one would be measured.
 */
static void drop(int fd) {
    struct linger now = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
}

static int measure_connect(char **argv) {
    struct sockaddr_in to = resolve(argv[0], argv[1]);
    long count = atol(argv[2]), n = 0;
    uint64_t *samples = sample_room(count);
    uint64_t until = now_ns() + (uint64_t)atol(argv[3]) * 1000000u;
    const char *pause = getenv("PROBE_PAUSE_US"), *burst = getenv("PROBE_BURST");
    long in_a_row = burst ? atol(burst) : 1;
    bound = getenv("PROBE_BIND") != NULL;
    while (n < count && (n < MIN_SAMPLES || now_ns() < until)) {
        if (pause && n % in_a_row == 0)
            usleep((useconds_t)atol(pause));
        uint64_t began = now_ns();
        int fd = dial(&to);
        samples[n++] = now_ns() - began;
        drop(fd);
    }
    report_latency(samples, (size_t)n);
    return 0;
}

static int measure_rtt(char **argv) {
    struct sockaddr_in to = resolve(argv[0], argv[1]);
    uint32_t size = (uint32_t)atol(argv[2]);
    long count = atol(argv[3]);
    uint64_t *samples = sample_room(count);
    int fd = dial(&to);
    limit_waiting(fd);
    if (size > CHUNK || write_all(fd, "r", 1) != 0 || write_all(fd, &size, sizeof size) != 0) {
        die("ask %s to echo", argv[0]);
    }
    for (long i = 0; i < count; i++) {
        uint64_t began = now_ns();
        if (write_all(fd, chunk, size) != 0 || read_all(fd, chunk, size) != 0) {
            die("round trip %ld", i);
        }
        samples[i] = now_ns() - began;
    }
    close(fd);
    report_latency(samples, (size_t)count);
    return 0;
}

/* ---- repetitions on demand: Figure 8 ---- */

enum { ROUNDS = 128, ROUND_BYTES = 1024, LINE = 24 * (ROUNDS + 3), TURN = 256, AGENTS = 64 };

static void round_trips(int fd, uint64_t *took) {
    struct __attribute__((packed)) {
        char what;
        uint32_t size;
    } ask = {'r', ROUND_BYTES};
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    limit_waiting(fd);
    if (write_all(fd, &ask, sizeof ask) != 0) {
        die("ask for an echo");
    }
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t began = now_ns();
        if (write_all(fd, chunk, ROUND_BYTES) != 0 || read_all(fd, chunk, ROUND_BYTES) != 0) {
            die("round trip %d", i);
        }
        took[i] = now_ns() - began;
    }
}

/*
 * One connection, as a line: when it began, how long socket, connect and first
 * byte took, and then each round trip, if any are wanted; nanoseconds. Returns
 * the length of the line.
 */
static size_t repetition(const struct sockaddr_in *to, int open, char *line) {
    uint64_t took[ROUNDS], began, first;
    int fd, length;
    alarm(TIMEOUT_S);
    began = now_ns();
    fd = dial(to);
    first = now_ns() - began;
    if (open) {
        round_trips(fd, took);
    }
    drop(fd);
    alarm(0);
    length = sprintf(line, "%llu %llu", (unsigned long long)began, (unsigned long long)first);
    for (int i = 0; open && i < ROUNDS; i++) {
        length += sprintf(line + length, " %llu", (unsigned long long)took[i]);
    }
    line[length++] = '\n';
    return (size_t)length;
}

/*
 * Questions are HOST PORT CONNECTIONS OPEN: so many connections, and then so many
 * with round trips, each after PROBE_PAUSE_US. All answers go back at the end, so
 * that nobody else works meanwhile. The hub's connection is the bare kernel's: it
 * is at an underlay address.
 */
static int agent(char **argv) {
    static char lines[LINE * TURN];
    const char *pause = getenv("PROBE_PAUSE_US");
    struct sockaddr_in to = resolve(argv[0], argv[1]);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char line[256], host[128], port[16];
    FILE *in;
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0 || !(in = fdopen(fd, "r"))) {
        die("connect to the hub at %s", argv[0]);
    }
    dprintf(fd, "%s\n", argv[2]);
    while (fgets(line, sizeof line, in)) {
        size_t length = 0;
        int count, open;
        if (sscanf(line, "%127s %15s %d %d", host, port, &count, &open) != 4 ||
            count + open >= TURN) {
            errno = EINVAL;
            die("question %s", line);
        }
        to = resolve(host, port);
        for (int i = 0; i < count + open; i++) {
            usleep(pause ? (useconds_t)atol(pause) : 0);
            length += repetition(&to, i >= count, lines + length);
        }
        length += (size_t)sprintf(lines + length, "end\n");
        if (write_all(fd, lines, length) != 0) {
            die("answer the hub");
        }
    }
    return 0;
}

static struct {
    char name[32];
    int fd;
    FILE *in;
} asked[AGENTS + 1]; /* agents, and who asks */

/* Passes a question, after an agent's name, on to it, and its answer back. */
static void pass(char *question, int have, int asker) {
    static char line[LINE];
    char *words = strchr(question, ' ');
    int i = 0;
    for (*words = '\0'; i < have && strcmp(asked[i].name, question) != 0; i++) {
    }
    if (i == have || write_all(asked[i].fd, words + 1, strlen(words + 1)) != 0) {
        die("agent %s", question);
    }
    do {
        if (!fgets(line, sizeof line, asked[i].in) ||
            write_all(asked[asker].fd, line, strlen(line)) != 0) {
            die("answer of agent %s", question);
        }
    } while (strcmp(line, "end\n") != 0);
}

/* Whoever says "control" asks, once all agents are there. */
static int hub(const char *port, int count) {
    char line[256];
    int listener = listen_on(port), asker = -1, have = 0;
    for (; have <= count && have <= AGENTS; have++) {
        int fd = accept(listener, NULL, NULL);
        FILE *in = fd < 0 ? NULL : fdopen(fd, "r");
        if (!in || !fgets(line, sizeof line, in) || sscanf(line, "%31s", asked[have].name) != 1) {
            die("agent %d", have);
        }
        asked[have].fd = fd;
        asked[have].in = in;
        if (strcmp(asked[have].name, "control") == 0) {
            asker = have;
        }
    }
    if (asker < 0) {
        errno = EINVAL;
        die("%d agents and nobody who asks", have);
    }
    dprintf(asked[asker].fd, "ready\n");
    while (fgets(line, sizeof line, asked[asker].in)) {
        pass(line, have, asker);
    }
    return 0;
}

/* Returns how many bytes it sent. */
static uint64_t send_until(int fd, const char *host, uint64_t end) {
    uint64_t sent = 0;
    while (now_ns() < end) {
        if (write_all(fd, chunk, sizeof chunk) != 0) {
            die("send to %s", host);
        }
        sent += sizeof chunk;
    }
    return sent;
}

/*
 * What an open connection carries. Its first milliseconds do not count: buffers
 * and window still grow, caches hold all there is (three times the steady rate,
 * natively), and whoever worked last on this CPU for the connection goes to sleep.
 */
static int measure_stream(char **argv) {
    struct sockaddr_in to = resolve(argv[0], argv[1]);
    const char *label = getenv("PROBE_LABEL");
    uint64_t sent = 0, counted = 0, before, began;
    int queued, fd = dial(&to);
    limit_waiting(fd);
    if (write_all(fd, "s", 1) != 0) {
        die("ask %s to count", argv[0]);
    }
    sent = send_until(fd, argv[0], now_ns() + WARM_MS * 1000000u);
    if (ioctl(fd, SIOCOUTQ, &queued) != 0) {
        die("what is queued to %s", argv[0]);
    }
    before = sent - (uint64_t)queued;
    began = now_ns();
    sent += send_until(fd, argv[0], began + (uint64_t)atol(argv[2]) * 1000000u);
    if (shutdown(fd, SHUT_WR) != 0 || read_all(fd, &counted, sizeof counted) != 0) {
        die("count from %s", argv[0]);
    }
    if (counted != sent) {
        errno = EIO;
        die("sent %llu bytes, %llu arrived", (unsigned long long)sent, (unsigned long long)counted);
    }
    printf("{\"label\":\"%s\",\"n\":1,\"bytes\":%llu,\"per_s\":%.0f}\n", label ? label : "",
           (unsigned long long)(sent - before),
           (double)(sent - before) * 1e9 / (double)(now_ns() - began));
    return 0;
}

static int await(char **argv) {
    struct sockaddr_in to = resolve(argv[0], argv[1]);
    struct timespec pause = {.tv_nsec = 20 * 1000000};
    uint64_t until = now_ns() + TIMEOUT_S * 1000000000ull;
    for (;;) {
        char byte;
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        limit_waiting(fd);
        if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0 &&
            (send(fd, "GET / HTTP/1.0\r\n\r\n", 18, MSG_NOSIGNAL), recv(fd, &byte, 1, 0) == 1)) {
            return 0;
        }
        if (now_ns() > until) {
            die("await %s:%s", argv[0], argv[1]);
        }
        close(fd);
        nanosleep(&pause, NULL);
    }
}

static uint64_t connections_until(const struct sockaddr_in *to, uint64_t end) {
    uint64_t n = 0;
    while (now_ns() < end) {
        drop(dial(to));
        n++;
    }
    return n;
}

static int measure_flood(char **argv) {
    struct sockaddr_in to = resolve(argv[0], argv[1]);
    const char *label = getenv("PROBE_LABEL");
    long count = atol(argv[2]);
    uint64_t n, total = 0, began = now_ns(), end = began + (uint64_t)atol(argv[3]) * 1000000u;
    int out[2];
    if (pipe2(out, O_CLOEXEC) != 0) {
        die("pipe");
    }
    for (long i = 0; i < count; i++) {
        pid_t pid = fork();
        if (pid < 0) {
            die("fork");
        }
        if (pid == 0) {
            n = connections_until(&to, end);
            _exit(write(out[1], &n, sizeof n) == sizeof n ? 0 : 1);
        }
    }
    close(out[1]);
    for (long i = 0; i < count; i++) {
        if (read(out[0], &n, sizeof n) != sizeof n) {
            die("one of %ld clients of %s:%s failed", count, argv[0], argv[1]);
        }
        total += n;
    }
    printf("{\"label\":\"%s\",\"n\":%llu,\"per_s\":%.0f}\n", label ? label : "",
           (unsigned long long)total, (double)total * 1e9 / (double)(now_ns() - began));
    return 0;
}

static int measure_lookup(char **argv) {
    const char *label = getenv("PROBE_LABEL");
    long count = atol(argv[1]);
    uint64_t *samples = sample_room(count), began = now_ns(), first;
    resolve(argv[0], "1");
    first = now_ns() - began;
    for (long i = 0; i < count; i++) {
        began = now_ns();
        resolve(argv[0], "1");
        samples[i] = now_ns() - began;
    }
    qsort(samples, (size_t)count, sizeof *samples, ascending);
    printf("{\"label\":\"%s\",\"n\":%ld,\"first\":%llu,\"p50\":%llu}\n", label ? label : "", count,
           (unsigned long long)first, (unsigned long long)samples[count / 2]);
    return 0;
}

/* ---- processes ---- */

static void reap(pid_t pid, const char *name) {
    int status;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            die("wait for %s", name);
        }
    }
    if (status != 0) {
        fprintf(stderr, "probe: %s ended with wait status %d\n", name, status);
        exit(1);
    }
}

/*
 * Execs argv in a child, its output going to out unless that is -1. The child
 * shares our memory until it execs, so it can say when it did.
 */
static pid_t start(char **argv, int out, volatile uint64_t *began) {
    pid_t pid = vfork();
    if (pid == 0) {
        if (out >= 0) {
            dup2(out, 1);
        }
        *began = now_ns();
        execve(argv[0], argv, environ);
        _exit(127);
    }
    if (pid < 0) {
        die("vfork");
    }
    return pid;
}

static int measure_spawn(char **argv) {
    long count = atol(argv[0]);
    uint64_t *samples = sample_room(count), began;
    for (long i = 0; i < count; i++) {
        reap(start(argv + 1, -1, &began), argv[1]);
        samples[i] = now_ns() - began;
    }
    report_latency(samples, (size_t)count);
    return 0;
}

static int measure_fork(char **argv) {
    long count = atol(argv[0]);
    uint64_t *samples = sample_room(count);
    for (long i = 0; i < count; i++) {
        uint64_t began = now_ns();
        pid_t pid = fork();
        if (pid < 0) {
            die("fork");
        }
        if (pid == 0) {
            execv(argv[1], argv + 1);
            _exit(127);
        }
        reap(pid, argv[1]);
        samples[i] = now_ns() - began;
    }
    report_latency(samples, (size_t)count);
    return 0;
}

static uint64_t launch_once(char **argv) {
    char text[64] = "";
    size_t length = 0;
    uint64_t began;
    int out[2];
    pid_t pid;
    if (pipe2(out, O_CLOEXEC) != 0) {
        die("pipe");
    }
    pid = start(argv, out[1], &began);
    close(out[1]);
    while (length < sizeof text - 1) {
        ssize_t n = read(out[0], text + length, sizeof text - 1 - length);
        if (n <= 0) {
            break;
        }
        length += (size_t)n;
    }
    close(out[0]);
    reap(pid, argv[0]);
    return strtoull(text, NULL, 10) - began;
}

static int measure_launch(char **argv) {
    long count = atol(argv[0]);
    uint64_t *samples = sample_room(count);
    for (long i = 0; i < count; i++) {
        samples[i] = launch_once(argv + 1);
    }
    report_latency(samples, (size_t)count);
    return 0;
}

int main(int argc, char **argv) {
    uint64_t began = now_ns();
    const char *mode = argc > 1 ? argv[1] : "";
    int left = argc - 2;
    if (strcmp(mode, "now") == 0) {
        printf("%llu\n", (unsigned long long)began);
        return 0;
    }
    if (strcmp(mode, "nothing") == 0) {
        return 0;
    }
    argv += 2;
    if (strcmp(mode, "bare") == 0 && left >= 1) {
        unsetenv("LD_PRELOAD");
        execv(argv[0], argv);
        die("run %s", argv[0]);
    }
    signal(SIGPIPE, SIG_IGN);
    pin();
    if (strcmp(mode, "serve") == 0 && left == 1) {
        serve(listen_on(argv[0]));
    }
    if (strcmp(mode, "crowd") == 0 && left == 2) {
        crowd(argv[0], atoi(argv[1]));
    }
    if (strcmp(mode, "agent") == 0 && left == 3) {
        return agent(argv);
    }
    if (strcmp(mode, "hub") == 0 && left == 2) {
        return hub(argv[0], atoi(argv[1]));
    }
    alarm(120);
    if (strcmp(mode, "connect") == 0 && left == 4) {
        return measure_connect(argv);
    } else if (strcmp(mode, "rtt") == 0 && left == 4) {
        return measure_rtt(argv);
    } else if (strcmp(mode, "stream") == 0 && left == 3) {
        return measure_stream(argv);
    } else if (strcmp(mode, "await") == 0 && left == 2) {
        return await(argv);
    } else if (strcmp(mode, "flood") == 0 && left == 4) {
        return measure_flood(argv);
    } else if (strcmp(mode, "lookup") == 0 && left == 2) {
        return measure_lookup(argv);
    } else if (strcmp(mode, "fork") == 0 && left >= 2) {
        return measure_fork(argv);
    } else if (strcmp(mode, "spawn") == 0 && left >= 2) {
        return measure_spawn(argv);
    } else if (strcmp(mode, "launch") == 0 && left >= 2) {
        return measure_launch(argv);
    }
    fprintf(stderr, "probe: see the head of probe.c for the modes\n");
    return 2;
}
