// SPDX-License-Identifier: Apache-2.0
/*
 * The least a custom runtime can be: what a platform's start is measured with. It
 * fetches its event from the Runtime API, prints when it had it, and answers some
 * seconds later: here the answer ends the sandbox, which others that still start
 * would wait for.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER_AFTER_S = 4 };

static char buffer[64 * 1024];

/* One request, one answer: its head, and what came with it. */
static int ask(const char *api, const char *request) {
    struct sockaddr_in to = {.sin_family = AF_INET};
    char host[64];
    size_t have = 0;
    ssize_t n;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || sscanf(api, "%63[^:]:%hu", host, &to.sin_port) != 2 || inet_pton(AF_INET, host, &to.sin_addr) != 1) {
        return -1;
    }
    to.sin_port = htons(to.sin_port);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0 || write(fd, request, strlen(request)) != (ssize_t)strlen(request)) {
        return -1;
    }
    while (have < sizeof buffer - 1 && (n = read(fd, buffer + have, sizeof buffer - 1 - have)) > 0) {
        have += (size_t)n;
        buffer[have] = 0;
        if (strstr(buffer, "\r\n\r\n")) {
            break;
        }
    }
    close(fd);
    return have > 0 ? 0 : -1;
}

int main(void) {
    const char *api = getenv("AWS_LAMBDA_RUNTIME_API"), *header = "\nLambda-Runtime-Aws-Request-Id: ";
    char request[512], id[128], *at;
    struct timespec now;
    if (!api) {
        return 1;
    }
    snprintf(request, sizeof request, "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: %s\r\n\r\n", api);
    if (ask(api, request) != 0 || !(at = strcasestr(buffer, header)) || sscanf(at + strlen(header), "%127[^\r\n]", id) != 1) {
        return 1;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    printf("answers %lld\n", (long long)now.tv_sec * 1000000000 + now.tv_nsec);
    fflush(stdout);
    sleep(ANSWER_AFTER_S);
    snprintf(request, sizeof request,
             "POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: %s\r\nContent-Length: 2\r\n\r\n{}", id, api);
    return ask(api, request) != 0;
}
