/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One conversation with the supervisor (wire.h): a connection of its own, gone
 * when the hook returns. Nothing here touches errno, libc or the heap.
 */
#ifndef BOXER_IPC_H
#define BOXER_IPC_H

#include "clock.h"
#include "env.h"

struct ipc {
    int fd;
    int64_t deadline;
    const struct identity *identity;
};

/* All return 0 or -errno. */
int ipc_open(struct ipc *c, const struct identity *id, int64_t patience);
int ipc_send(struct ipc *c, struct boxer_request *q);

/*
 * *fd gets the descriptor that came along, or -1; fd may be NULL. -EMFILE when
 * the kernel could not install it, -EPROTO when the answer is not one.
 */
int ipc_receive(struct ipc *c, unsigned op, struct boxer_response *r, int *fd);
int ipc_ask(struct ipc *c, struct boxer_request *q, struct boxer_response *r, int *fd);
void ipc_close(struct ipc *c);

/* A whole conversation of one question. */
int ipc_once(const struct identity *id, struct boxer_request *q, struct boxer_response *r, int *fd,
             int64_t patience);

/* The codec: fills in what all requests have; checks what all responses have. */
void request_seal(struct boxer_request *q, const struct identity *id);
int response_check(const struct boxer_response *r, long size, unsigned op,
                   const struct identity *id);

#endif
