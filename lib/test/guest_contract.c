/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of what programs may count on: the same results and errors as natively. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "guest.h"

static int dial(int fd, const char *ip, unsigned port) {
    struct sockaddr_in a = v4(ip, port);
    return connect(fd, (struct sockaddr *)&a, sizeof a);
}

static int bind4(int fd, const char *ip, unsigned port) {
    struct sockaddr_in a = v4(ip, port);
    return bind(fd, (struct sockaddr *)&a, sizeof a);
}

static unsigned port_of(int fd) {
    return (unsigned)atoi(strrchr(name_of(fd, 0), ':') + 1);
}

void guest_binding(void) {
    struct sockaddr_in6 mapped = v6("::ffff:100.80.0.3", 0), any = v6("::", 0);
    int a = tcp(AF_INET), b = tcp(AF_INET), six = tcp(AF_INET6), no = 0;
    CHECK(bind4(a, "100.80.0.3", 0) == 0 && listen(a, 4) == 0 && port_of(a) != 0);
    CHECK_ERRNO(bind4(b, "100.80.0.3", port_of(a)), EADDRINUSE);
    CHECK_ERRNO(bind4(b, "0.0.0.0", port_of(a)), EADDRINUSE);
    CHECK_ERRNO(bind4(b, "100.80.0.2", 0), EADDRNOTAVAIL);
    CHECK_ERRNO(bind4(b, "100.80.77.77", 0), EADDRNOTAVAIL);
    CHECK(listen(a, 8) == 0 && listen(b, 4) == 0); /* again; and without bind */
    CHECK(strncmp(name_of(b, 0), "0.0.0.0:", 8) == 0 && port_of(b) != 0);
    close(b);
    b = tcp(AF_INET);
    CHECK(dial(b, "100.80.0.3", port_of(a)) == 0);
    close(b);
    close(a);
    setsockopt(six, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    CHECK(bind(six, (struct sockaddr *)&mapped, sizeof mapped) == 0 && listen(six, 1) == 0);
    CHECK(strncmp(name_of(six, 0), "[::ffff:100.80.0.3]:", 20) == 0);
    close(six);
    six = tcp(AF_INET6);
    CHECK(bind(six, (struct sockaddr *)&any, sizeof any) == 0 && listen(six, 1) == 0);
    CHECK(strncmp(name_of(six, 0), "[::]:", 5) == 0);
    close(six);
}

/* Wrong pointers are EFAULT, short buffers are filled as far as they go. */
void guest_pointers(void) {
    struct sockaddr_in peer;
    struct sockaddr *wrong = (struct sockaddr *)8, *sa = (struct sockaddr *)&peer;
    socklen_t len = sizeof peer, *read_only;
    int server = tcp(AF_INET), a = tcp(AF_INET), b;
    read_only = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(bind4(server, "100.80.0.3", 0) == 0 && listen(server, 8) == 0);
    CHECK(dial(a, "100.80.0.3", port_of(server)) == 0);
    CHECK_ERRNO(getsockname(a, wrong, &len), EFAULT);
    CHECK_ERRNO(getsockname(a, sa, (socklen_t *)8), EFAULT);
    CHECK_ERRNO(getpeername(a, NULL, &len), EFAULT);
    CHECK_ERRNO(getpeername(a, sa, NULL), EFAULT);
    CHECK_ERRNO(getpeername(a, sa, read_only), EFAULT);
    memset(&peer, 0x5a, sizeof peer);
    len = 6;
    CHECK(getpeername(a, sa, &len) == 0 && len == sizeof peer);
    CHECK(memcmp((char *)&peer + 4, "\x64\x50\x5a\x5a", 4) == 0);
    len = 0;
    CHECK(getsockname(a, wrong, &len) == 0 && len == sizeof peer); /* nothing is written */
    len = (socklen_t)-1;
    CHECK_ERRNO(getsockname(a, sa, &len), EINVAL);
    len = sizeof peer;
    CHECK_ERRNO(accept(server, wrong, &len), EFAULT); /* and that connection is gone */
    close(a);
    a = tcp(AF_INET);
    CHECK(dial(a, "100.80.0.3", port_of(server)) == 0);
    CHECK_ERRNO(accept(server, sa, (socklen_t *)8), EFAULT);
    close(a);
    a = tcp(AF_INET);
    CHECK(dial(a, "100.80.0.3", port_of(server)) == 0);
    len = 0;
    CHECK((b = accept(server, wrong, &len)) >= 0 && len == sizeof peer);
    close(b);
    close(a);
    close(server);
    munmap(read_only, 4096);
}

void guest_datagrams(void) {
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM}, *l;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(getaddrinfo("store", "53", &hints, &l) == 0 && l->ai_socktype == SOCK_DGRAM);
    CHECK(l->ai_protocol == IPPROTO_UDP && !l->ai_next);
    errno = 0;
    if (connect(fd, l->ai_addr, l->ai_addrlen) == 0)
        CHECK(strncmp(name_of(fd, 1), "100.80.0.2:53", 13) == 0);
    else
        CHECK(errno == ENETUNREACH);
    CHECK_ERRNO(bind4(fd, "100.80.0.3", 0), errno == EINVAL ? EINVAL : EADDRNOTAVAIL);
    freeaddrinfo(l);
    close(fd);
}

/* No descriptor is left for the conversation: an error that says so, at once. */
void guest_limits(void) {
    struct rlimit limit, old;
    int direct = tcp(AF_INET), hold = tcp(AF_INET), native = tcp(AF_INET);
    name_of(direct, 0); /* the table is there */
    CHECK(getrlimit(RLIMIT_NOFILE, &old) == 0);
    limit = old;
    limit.rlim_cur = (rlim_t)(native + 1);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    CHECK_ERRNO(dial(direct, "100.80.0.5", 80), EMFILE);
    CHECK_ERRNO(dial(hold, "100.80.0.4", 80), EMFILE);
    CHECK(dial(native, "100.80.0.2", echo_port()) == 0);
    exchange(native, "needs none");
    CHECK(strncmp(name_of(native, 1), "100.80.0.2:", 11) == 0);
    CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
    CHECK(dial(direct, "100.80.0.5", 80) == 0); /* nothing was spoilt */
    exchange(direct, "now");
    close(direct);
    close(hold);
    close(native);
}

static void check_peers(void) {
    int fd = tcp(AF_INET);
    CHECK(dial(fd, "100.80.0.2", echo_port()) == 0);
    exchange(fd, "from another root");
    close(fd);
    fd = tcp(AF_INET);
    CHECK(dial(fd, "100.80.0.5", 80) == 0);
    exchange(fd, "as another user");
    close(fd);
}

/* Another root and another user before the first hook. */
void guest_changed_root(void) {
    char directory[] = "/tmp/boxer-root-XXXXXX";
    int status;
    CHECK(mkdtemp(directory));
    pid_t pid = fork();
    if (pid == 0) {
        if (getuid() == 0) {
            CHECK(chroot(directory) == 0 && chdir("/") == 0);
            CHECK(setgid(65534) == 0 && setuid(65534) == 0);
        }
        check_peers();
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0 && rmdir(directory) == 0);
}

void guest_refused_later(void) {
    struct pollfd p = {.events = POLLOUT};
    int error = 0, fd = tcp(AF_INET);
    socklen_t len = sizeof error;
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    CHECK_ERRNO(dial(fd, "100.80.0.6", 80), EINPROGRESS);
    p.fd = fd;
    CHECK(poll(&p, 1, 5000) == 1 && (p.revents & POLLERR) && (p.revents & POLLHUP));
    CHECK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == ECONNREFUSED);
    close(fd);
    fd = tcp(AF_INET);
    CHECK_ERRNO(dial(fd, "100.80.0.6", 80), ECONNREFUSED);
    close(fd);
}

static void ring(int unused) {
    (void)unused;
}

static void alarm_every(int microseconds, int flags) {
    struct sigaction action = {.sa_handler = ring, .sa_flags = flags};
    struct itimerval t = {{0, microseconds}, {0, microseconds}};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &t, NULL) == 0);
}

static void *dial_hold(void *socket) {
    dial(*(int *)socket, "100.80.0.4", 80);
    return NULL;
}

/* What is held is in the kernel's hands: time-outs, signals, cancellation, dup. */
void guest_waiting(void) {
    struct timeval soon = {0, 50000};
    pthread_t thread;
    void *result;
    int fd = tcp(AF_INET), other;
    CHECK(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &soon, sizeof soon) == 0);
    CHECK_ERRNO(dial(fd, "100.80.0.4", 80), EINPROGRESS);
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    CHECK_ERRNO(dial(fd, "100.80.0.4", 80), EALREADY);
    other = dup(fd);
    CHECK_ERRNO(dial(other, "100.80.0.4", 80), EALREADY);
    close(other);
    close(fd);
    fd = tcp(AF_INET);
    alarm_every(50000, 0);
    CHECK_ERRNO(dial(fd, "100.80.0.4", 80), EINTR);
    alarm_every(0, 0);
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    CHECK_ERRNO(dial(fd, "100.80.0.4", 80), EALREADY);
    close(fd);
    fd = tcp(AF_INET);
    CHECK(pthread_create(&thread, NULL, dial_hold, &fd) == 0);
    usleep(50000);
    CHECK(pthread_cancel(thread) == 0 && pthread_join(thread, &result) == 0);
    CHECK(result == PTHREAD_CANCELED);
    close(fd);
}

/* With SA_RESTART nothing is noticed; and a child connects its parent's socket. */
void guest_interrupted(void) {
    int fd = tcp(AF_INET), status;
    alarm_every(2000, SA_RESTART);
    CHECK(dial(fd, "100.80.0.4", 80) == 0);
    alarm_every(0, SA_RESTART);
    exchange(fd, "restarted");
    close(fd);
    fd = tcp(AF_INET);
    pid_t pid = fork();
    if (pid == 0)
        _exit(dial(fd, "100.80.0.5", 80) != 0);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK_ERRNO(dial(fd, "100.80.0.5", 80), EISCONN);
    exchange(fd, "the child made it");
    close(fd);
}

/* The node itself, when it is not to be reached natively. */
void guest_self(void) {
    int fd = tcp(AF_INET);
    CHECK(dial(fd, "100.80.0.3", 80) == 0);
    exchange(fd, "to oneself");
    CHECK(strcmp(name_of(fd, 1), "100.80.0.5:6379") == 0); /* what ADDRESS says */
    close(fd);
}
