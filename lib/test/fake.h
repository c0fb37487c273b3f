/* SPDX-License-Identifier: Apache-2.0 */
/* A supervisor for tests: answers the wire protocol as its fields say. */
#ifndef BOXER_FAKE_H
#define BOXER_FAKE_H

#include <pthread.h>
#include <stdint.h>

#include "../table.h"
#include "../wire.h"

enum fake_mode { FAKE_NORMAL, FAKE_SILENT, FAKE_HOSTILE, FAKE_WRONG_TOKEN, FAKE_DEAF };

enum { OP_COUNT = 16 };

struct fake {
    /* what it does */
    enum fake_mode mode;
    int stale_signals; /* before each delivered connection */
    int deliver;       /* connections delivered to each new listener */
    int no_preface;    /* DIRECT that fails at once: 1 no preface, 2 no route */
    int local_port; /* DIRECT from such a port: 1 kept there by a socket of ours, 2 listened on */
    int refuse;     /* errno for CONNECT to .6 */
    int shrinkable; /* a table without seals */
    int restart_table;  /* TABLE gives a new table from the second time on */
    int self_transport; /* of the node itself, when not native */
    int no_release;     /* what is held stays held */
    int end_twice;      /* what is released ends and is reset before the guest wakes up */
    int hand_all;       /* more descriptors than one with each ACCEPT */
    /* what it saw */
    int ops[OP_COUNT];
    struct boxer_request last[OP_COUNT];
    int fallbacks;
    int prefaces; /* exact ones, first in their stream */
    int bad_prefaces;
    uint16_t kept_port; /* the last port that DIRECT was told to use */
    int from_kept;      /* prefaces that came from it */
    /* where it is */
    char name[64];
    int listener;
    int memfd;
    struct boxer_table *table;
    uint16_t port;      /* overlay port; its listener is on 127.68.0.5 */
    uint16_t echo_port; /* native member .2: an echo on 127.68.0.2 */
    int overlay;
    int echo;
    int hold;
    int signal; /* the last signal connection */
    struct {
        uint16_t token;
        int fd;
    } queued[8];
    pthread_mutex_t lock;
};

#define FAKE_MONITOR_TOKEN "000102030405060708090a0b0c0d0e0f"
#define FAKE_SUPERVISOR_TOKEN "101112131415161718191a1b1c1d1e1f"

void fake_start(struct fake *f);
void fake_stop(struct fake *f); /* the name is free after this */

/* Used between its parts. */
void fake_make_table(struct fake *f);
void fake_spawn(void *(*run)(void *), void *argument);
void *fake_echo_server(void *fake);
void *fake_overlay_server(void *fake);
void fake_deliver(struct fake *f, const struct boxer_request *q);
int fake_take(struct fake *f, uint16_t token);
void fake_plan_hold(struct fake *f, struct boxer_response *r);
void fake_release(struct fake *f, const struct boxer_request *q);
void fake_keep_port(struct fake *f);
int fake_listen(const char *ip, uint16_t *port, int backlog);

#endif
