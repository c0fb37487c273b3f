/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of shared.c by themselves, under sanitizers and valgrind. */
#include <arpa/inet.h>
#include <sys/un.h>
#include <unistd.h>

#include "check.h"

#include "../shared.h"
#include "../view.h"

static struct environment env = {
    .loopback = 0x7f440003, .cidr_ip = 0x64500000, .cidr_mask = 0xffff0000};

const struct environment *environment(void) {
    return &env;
}

const void *view_info(struct table_info *info) {
    info->header = (struct boxer_table){.own_overlay = 0x64500003};
    return info;
}

static struct endpoint kernel_name(int fd) {
    struct endpoint e = {0, 0, 0};
    union address a;
    socklen_t len = sizeof a;
    CHECK(getsockname(fd, &a.any, &len) == 0);
    CHECK(endpoint_of(&a, len, &e));
    return e;
}

static int tcp4(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0);
    return fd;
}

static long try_bind(int fd, uint32_t ip, uint16_t port) {
    struct endpoint e = {ip, port, AF_INET};
    union address *a = malloc(V4_LEN); /* not a byte more than there is */
    union address whole;
    long result;
    address_make(&whole, &e);
    memcpy(a, &whole, V4_LEN);
    result = shared_bind(fd, a, V4_LEN);
    free(a);
    return result;
}

static void test_ports(void) {
    CHECK(shared_kernel_port(0) == 0 && shared_kernel_port(1) == 64513);
    CHECK(shared_kernel_port(1023) == 65535 && shared_kernel_port(1024) == 1024);
    for (unsigned port = 0; port <= LOW_PORTS_AT; port++)
        CHECK(shared_guest_port(shared_kernel_port((uint16_t)port)) == port);
    env.loopback = 0;
    CHECK(shared_kernel_port(80) == 80 && shared_guest_port(64592) == 64592);
    env.loopback = 0x7f440003;
}

static void test_bind(void) {
    static const struct {
        uint32_t ip, shown;
    } cases[] = {
        {INADDR_ANY, INADDR_ANY}, {0x7f000001, 0x7f000001}, {0x64500003, 0}, {0x7f440003, 0}};
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct endpoint e;
        int fd = tcp4();
        CHECK(try_bind(fd, cases[i].ip, 25) == 0);
        e = kernel_name(fd);
        CHECK(e.ip == 0x7f440003 && e.port == 64537);
        CHECK(shared_name(1, fd, &e) == (i < 2)); /* the others are translated by name.c */
        CHECK(i >= 2 || (e.ip == cases[i].shown && e.port == 25));
        CHECK(shared_is_private(fd) == (i == 1));
        close(fd);
    }
}

static void test_refusals(void) {
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    int fd = tcp4(), udp = socket(AF_INET, SOCK_DGRAM, 0), un = socket(AF_UNIX, SOCK_STREAM, 0);
    struct endpoint e;
    CHECK(try_bind(fd, 0x64500004, 25) == -EADDRNOTAVAIL);
    CHECK(try_bind(fd, 0, 64513) == -EADDRINUSE && try_bind(fd, 0, 65535) == -EADDRINUSE);
    CHECK(shared_bind(fd, &local, 4) == -EINVAL && shared_bind(-1, &local, 16) == -EBADF);
    CHECK(shared_bind(un, &local, sizeof(sa_family_t)) == 0); /* the kernel chooses a name */
    CHECK(try_bind(udp, 0, 0) == 0 && kernel_name(udp).ip == 0);
    CHECK(try_bind(fd, 0x7f440007, 0) == 0); /* neither its own nor of the overlay */
    e = kernel_name(fd);
    CHECK(e.ip == 0x7f440007 && !shared_name(1, fd, &e));
    close(fd);
    close(udp);
    close(un);
}

/* valgrind does not know that the kernel is asked whether these are good. */
static void test_pointers(void) {
    union address to;
    int fd = tcp4();
    CHECK(shared_bind(fd, NULL, V4_LEN) == -EFAULT && shared_bind(fd, (void *)8, 16) == -EFAULT);
    CHECK(!shared_translate(fd, (void *)8, V4_LEN, &to));
    close(fd);
}

static void test_listen(void) {
    struct endpoint e;
    int fd = tcp4();
    shared_before_listen(fd);
    e = kernel_name(fd);
    CHECK(e.ip == 0x7f440003 && e.port);
    shared_before_listen(fd); /* once is enough */
    CHECK(kernel_name(fd).port == e.port);
    shared_before_listen(-1);
    close(fd);
}

static void test_connect(void) {
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons(25)};
    struct endpoint e;
    union address to;
    int server = tcp4(), fd = tcp4(), accepted;
    CHECK(try_bind(server, 0, 25) == 0 && listen(server, 1) == 0);
    local.sin_addr.s_addr = htonl(0x7f000001);
    CHECK(shared_connect(fd, &local, sizeof local) == 0);
    e = kernel_name(fd);
    CHECK(e.ip == 0x7f450003 && shared_name(1, fd, &e) && e.ip == 0x7f000001);
    accepted = accept(server, NULL, NULL);
    e = kernel_name(accepted);
    CHECK(e.ip == 0x7f440003 && e.port == 64537);
    CHECK(shared_name(1, accepted, &e) && e.ip == 0x7f000001 && e.port == 25);
    close(fd);
    close(accepted);
    fd = tcp4();
    local.sin_addr.s_addr = htonl(0x7f000002); /* another address of the machine's */
    CHECK(!shared_translate(fd, &local, sizeof local, &to) && kernel_name(fd).ip == 0);
    CHECK(!shared_translate(fd, NULL, sizeof local, &to));
    CHECK(!shared_translate(fd, &local, 3, &to));
    close(fd);
    close(server);
}

int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1)
        test_pointers();
    test_ports();
    test_bind();
    test_refusals();
    test_listen();
    test_connect();
    printf("rules of shared loopbacks: passed\n");
    return 0;
}
