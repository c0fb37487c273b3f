// SPDX-License-Identifier: Apache-2.0
// A guest for systems that have little: built with musl-gcc or a cross compiler.
//   peer serve PORT TEXT   sends TEXT and whom it sees to everybody who connects
//   peer get HOST PORT     prints what the peer sends, and whom it sees
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void fail(const char *what) {
    fprintf(stderr, "peer: %s: %s\n", what, strerror(errno));
    exit(1);
}

static const char *address(const struct sockaddr_in *sa) {
    return inet_ntoa(sa->sin_addr);
}

static void serve(int port, const char *text) {
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0)
        fail("socket");
    if (bind(fd, (struct sockaddr *)&own, sizeof own) < 0)
        fail("bind");
    if (listen(fd, 16) < 0)
        fail("listen");
    for (;;) {
        struct sockaddr_in from;
        socklen_t size = sizeof from;
        int conn = accept(fd, (struct sockaddr *)&from, &size);
        if (conn < 0)
            fail("accept");
        dprintf(conn, "%s sees %s\n", text, address(&from));
        close(conn);
    }
}

static void get(const char *host, const char *port) {
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
    int err = getaddrinfo(host, port, &hints, &found);
    if (err) {
        fprintf(stderr, "peer: %s: %s\n", host, gai_strerror(err));
        exit(1);
    }
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen) < 0)
        fail("connect");
    struct sockaddr_in to;
    socklen_t size = sizeof to;
    if (getpeername(fd, (struct sockaddr *)&to, &size) < 0)
        fail("getpeername");
    printf("%s says: ", address(&to));
    char text[256];
    ssize_t n;
    while ((n = read(fd, text, sizeof text)) > 0)
        fwrite(text, 1, (size_t)n, stdout);
    if (n < 0)
        fail("read");
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 4 && !strcmp(argv[1], "serve"))
        serve(atoi(argv[2]), argv[3]);
    else if (argc == 4 && !strcmp(argv[1], "get"))
        get(argv[2], argv[3]);
    else
        return 2;
    return 0;
}
