// SPDX-License-Identifier: Apache-2.0
/*
 * A link with a delay, since not every kernel has netem: forwards packets
 * between two TUN devices, descriptors 3 and 4, each packet after the delay.
 *
 *   link CPU TRACE
 *
 * Reads "delay NANOSECONDS" lines from standard input and answers each with a
 * line. At the end of standard input it writes the TCP packets it saw to TRACE:
 *
 *   time_ns  from(0: descriptor 3, 1: 4)  source_port  port  flags  payload_bytes  source  target
 *
 * It spins while packets are on their way, because waking up takes as long as the
 * delay may be wrong, and SPIN_NS longer, in which a host natively answers. Then it
 * sleeps, because what works on this machine meanwhile would have CPUs of its own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { FIRST_FD = 3, ROOM = 4096, MTU = 1500, TRACES = 1 << 20, SPIN_NS = 50000 };

struct packet {
    uint64_t due;
    size_t length;
    uint8_t data[MTU];
};

/* The packets on their way, by the side they came from. */
static struct {
    struct packet ring[ROOM];
    size_t head, tail;
} way[2];

static struct {
    uint64_t when;
    uint16_t source, port, payload;
    uint8_t from, flags, addresses[8];
} traces[TRACES];
static size_t traced;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static unsigned pair(const uint8_t *at) {
    return (unsigned)at[0] << 8 | at[1];
}

/* RFC 791 and RFC 9293: no more of a packet than is counted. */
static void trace(uint64_t when, int from, const struct packet *p) {
    size_t ip = (size_t)(p->data[0] & 15) * 4, tcp;
    const uint8_t *header = p->data + ip;
    if (p->length < 40 || p->data[0] >> 4 != 4 || p->data[9] != 6 || p->length < ip + 20 ||
        traced == TRACES) {
        return;
    }
    tcp = (size_t)(header[12] >> 4) * 4;
    traces[traced].when = when;
    traces[traced].from = (uint8_t)from;
    traces[traced].source = (uint16_t)pair(header);
    traces[traced].port = (uint16_t)pair(header + 2);
    traces[traced].flags = header[13];
    memcpy(traces[traced].addresses, p->data + 12, 8);
    traces[traced].payload = (uint16_t)(pair(p->data + 2) - ip - tcp);
    traced++;
}

static void write_traces(const char *path) {
    FILE *out = fopen(path, "w");
    if (!out) {
        die(path);
    }
    for (size_t i = 0; i < traced; i++) {
        const uint8_t *a = traces[i].addresses;
        fprintf(out, "%llu %d %d %d %d %d %d.%d.%d.%d %d.%d.%d.%d\n",
                (unsigned long long)traces[i].when, traces[i].from, traces[i].source,
                traces[i].port, traces[i].flags, traces[i].payload, a[0], a[1], a[2], a[3], a[4],
                a[5], a[6], a[7]);
    }
    if (fclose(out) != 0) {
        die(path);
    }
}

/* Takes in what a side sent; returns whether there was anything. */
static int take(int from, uint64_t delay) {
    int any = 0;
    while (way[from].tail - way[from].head < ROOM) {
        struct packet *p = &way[from].ring[way[from].tail % ROOM];
        ssize_t n = read(FIRST_FD + from, p->data, sizeof p->data);
        uint64_t now = now_ns();
        if (n <= 0) {
            break;
        }
        p->length = (size_t)n;
        p->due = now + delay;
        trace(now, from, p);
        way[from].tail++;
        any = 1;
    }
    return any;
}

/* Returns whether there was anything. A device that is full loses the packet, as a link would. */
static int give(int from) {
    int any = 0;
    while (way[from].head != way[from].tail) {
        struct packet *p = &way[from].ring[way[from].head % ROOM];
        if (p->due > now_ns()) {
            break;
        }
        if (write(FIRST_FD + !from, p->data, p->length) < 0 && errno != EAGAIN && errno != EIO) {
            die("write to the other side");
        }
        way[from].head++;
        any = 1;
    }
    return any;
}

/* Returns 0 at the end of standard input. */
static int command(uint64_t *delay) {
    char line[64];
    ssize_t n = read(0, line, sizeof line - 1);
    if (n <= 0) {
        return 0;
    }
    line[n] = '\0';
    if (sscanf(line, "delay %lu", delay) == 1) {
        printf("delay %lu\n", *delay);
        fflush(stdout);
    }
    return 1;
}

static void forward(void) {
    struct pollfd fds[] = {{0, POLLIN, 0}, {FIRST_FD, POLLIN, 0}, {FIRST_FD + 1, POLLIN, 0}};
    uint64_t delay = 0, busy = 0;
    unsigned turn = 0;
    for (;;) {
        int spin =
            way[0].head != way[0].tail || way[1].head != way[1].tail || now_ns() - busy < SPIN_NS;
        if (!spin || ++turn % 1024 == 0) {
            poll(fds, 3, spin ? 0 : -1);
            if (fds[0].revents && !command(&delay)) {
                return;
            }
        }
        if (take(0, delay) | take(1, delay) | give(0) | give(1)) {
            busy = now_ns();
        }
    }
}

int main(int argc, char **argv) {
    cpu_set_t set;
    if (argc != 3) {
        fprintf(stderr, "link: see the head of link.c\n");
        return 2;
    }
    if (*argv[1]) {
        CPU_ZERO(&set);
        CPU_SET((size_t)atoi(argv[1]), &set);
        sched_setaffinity(0, sizeof set, &set);
    }
    /* Nobody the link connects should be able to slow it down; not everybody may do this. */
    sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1});
    memset(way, 0, sizeof way); /* no page fault on the way */
    for (int fd = FIRST_FD; fd <= FIRST_FD + 1; fd++) {
        if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
            die("a TUN device");
        }
    }
    forward();
    write_traces(argv[2]);
    return 0;
}
