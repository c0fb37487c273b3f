/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the case named by the first argument. */
#include "guest.h"

#include <dirent.h>
#include <netinet/tcp.h>

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"native", guest_native},
    {"native-v6", guest_native_v6},
    {"native-nonblocking", guest_native_nonblocking},
    {"connect-errors", guest_connect_errors},
    {"direct", guest_direct},
    {"direct-nonblocking", guest_direct_nonblocking},
    {"direct-options", guest_direct_options},
    {"direct-bound", guest_direct_bound},
    {"hold", guest_hold},
    {"ended-early", guest_ended_early},
    {"bind", guest_bind},
    {"listen", guest_listen},
    {"accept-native", guest_accept_native},
    {"accept-signal", guest_accept_signal},
    {"accept-signal-v6", guest_accept_signal_v6},
    {"accept-edge", guest_accept_edge},
    {"accept-limit", guest_accept_limit},
    {"accept-declined", guest_accept_declined},
    {"closed-stdio", guest_closed_stdio},
    {"other-sockets", guest_other_sockets},
    {"hosts", guest_hosts},
    {"addrinfo", guest_addrinfo},
    {"hostname", guest_hostname},
    {"exec", guest_exec},
    {"printenv", guest_printenv},
    {"plain", guest_plain},
    {"silent", guest_silent},
    {"supervisor-gone", guest_supervisor_gone},
    {"no-table", guest_no_table},
    {"hostile", guest_hostile},
    {"threads", guest_threads},
    {"renewed", guest_renewed},
    {"cancel", guest_cancel},
    {"binding", guest_binding},
    {"pointers", guest_pointers},
    {"datagrams", guest_datagrams},
    {"limits", guest_limits},
    {"changed-root", guest_changed_root},
    {"refused-later", guest_refused_later},
    {"waiting", guest_waiting},
    {"interrupted", guest_interrupted},
    {"self", guest_self},
    {"syscall", guest_syscall},
    {"fastopen", guest_fastopen},
    {"fastopen-errors", guest_fastopen_errors},
    {"shell", guest_shell},
    {"addrinfo-a", guest_addrinfo_a},
    {"shared", guest_shared},
};

struct sockaddr_in v4(const char *ip, unsigned port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    CHECK(inet_pton(AF_INET, ip, &a.sin_addr) == 1);
    return a;
}

struct sockaddr_in6 v6(const char *ip, unsigned port) {
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    CHECK(inet_pton(AF_INET6, ip, &a.sin6_addr) == 1);
    return a;
}

int tcp(int family) {
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    if (getenv("TEST_MAXSEG")) {
        int size = atoi(getenv("TEST_MAXSEG"));
        CHECK(setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &size, sizeof size) == 0);
    }
    return fd;
}

unsigned echo_port(void) {
    return (unsigned)atoi(getenv("TEST_ECHO_PORT"));
}

void exchange(int fd, const char *text) {
    char back[256];
    size_t n = strlen(text), got = 0;
    CHECK(send(fd, text, n, MSG_NOSIGNAL) == (ssize_t)n);
    while (got < n) {
        ssize_t r = recv(fd, back + got, n - got, 0);
        CHECK(r > 0);
        got += (size_t)r;
    }
    CHECK(memcmp(back, text, n) == 0);
}

const char *name_of(int fd, int peer) {
    static char text[128];
    char ip[INET6_ADDRSTRLEN];
    struct sockaddr_storage s;
    socklen_t len = sizeof s;
    int r = peer ? getpeername(fd, (struct sockaddr *)&s, &len)
                 : getsockname(fd, (struct sockaddr *)&s, &len);
    CHECK(r == 0);
    if (s.ss_family == AF_INET) {
        struct sockaddr_in *a = (struct sockaddr_in *)&s;
        CHECK(len == sizeof *a);
        snprintf(text, sizeof text, "%s:%d", inet_ntop(AF_INET, &a->sin_addr, ip, sizeof ip),
                 ntohs(a->sin_port));
    } else {
        struct sockaddr_in6 *a = (struct sockaddr_in6 *)&s;
        CHECK(s.ss_family == AF_INET6 && len == sizeof *a);
        snprintf(text, sizeof text, "[%s]:%d", inet_ntop(AF_INET6, &a->sin6_addr, ip, sizeof ip),
                 ntohs(a->sin6_port));
    }
    return text;
}

int open_descriptors(void) {
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    CHECK(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

int main(int argc, char **argv) {
    for (unsigned i = 0; argc > 1 && i < sizeof cases / sizeof cases[0]; i++) {
        if (strcmp(cases[i].name, argv[1]) != 0)
            continue;
        int before = open_descriptors();
        cases[i].run();
        CHECK(open_descriptors() == before);
        return 0;
    }
    fprintf(stderr, "no such case\n");
    return 2;
}
