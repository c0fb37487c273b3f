/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of names: getaddrinfo, the gethostby family, uname. */
#include <sys/utsname.h>

#include "guest.h"

static int resolve(const char *node, const char *service, int family, int type, int flags,
                   struct addrinfo **list) {
    struct addrinfo hints = {.ai_family = family, .ai_socktype = type, .ai_flags = flags};
    *list = NULL;
    return getaddrinfo(node, service, &hints, list);
}

static uint32_t ip_of(const struct addrinfo *a) {
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)a->ai_addr;
    if (a->ai_family == AF_INET)
        return ntohl(((struct sockaddr_in *)a->ai_addr)->sin_addr.s_addr);
    return ntohl(six->sin6_addr.s6_addr32[3]);
}

static int length(const struct addrinfo *a) {
    int n = 0;
    for (; a; a = a->ai_next)
        n++;
    return n;
}

static void check_hints(void) {
    struct addrinfo *l;
    CHECK(resolve("store", "80", AF_INET6, SOCK_STREAM, 0, &l) == EAI_NONAME);
    CHECK(resolve("store", "80", AF_INET6, SOCK_STREAM, AI_V4MAPPED, &l) == 0);
    CHECK(l->ai_family == AF_INET6 && l->ai_addrlen == sizeof(struct sockaddr_in6));
    CHECK(ip_of(l) == 0x64500002 && ((struct sockaddr_in6 *)l->ai_addr)->sin6_port == htons(80));
    CHECK(IN6_IS_ADDR_V4MAPPED(&((struct sockaddr_in6 *)l->ai_addr)->sin6_addr));
    freeaddrinfo(l);
    CHECK(resolve("store", NULL, AF_INET, SOCK_STREAM, AI_CANONNAME, &l) == 0);
    CHECK(strcmp(l->ai_canonname, "store") == 0);
    freeaddrinfo(l);
    CHECK(resolve("store", "80", AF_INET, SOCK_STREAM, AI_NUMERICHOST, &l) == EAI_NONAME);
    CHECK(resolve("store", "no-such-service", AF_INET, SOCK_STREAM, 0, &l) == EAI_SERVICE);
    CHECK(resolve("store", "http", AF_INET, SOCK_STREAM, AI_NUMERICSERV, &l) == EAI_NONAME);
    CHECK(resolve("store", "http", AF_INET, SOCK_STREAM, AI_PASSIVE | AI_ADDRCONFIG, &l) == 0);
    CHECK(((struct sockaddr_in *)l->ai_addr)->sin_port == htons(80));
    freeaddrinfo(l);
}

static void check_service(void) {
    struct addrinfo *l, *tail;
    uint32_t first;
    CHECK(resolve("logic", "80", AF_UNSPEC, SOCK_STREAM, 0, &l) == 0 && length(l) == 2);
    first = ip_of(l);
    CHECK(ip_of(l) + ip_of(l->ai_next) == 0x64500004u + 0x64500005u);
    tail = l->ai_next; /* parts of a list may be freed by themselves */
    l->ai_next = NULL;
    freeaddrinfo(l);
    CHECK(ip_of(tail) != first);
    freeaddrinfo(tail);
    CHECK(resolve("logic", "80", AF_UNSPEC, SOCK_STREAM, 0, &l) == 0);
    CHECK(ip_of(l) != first); /* it rotates */
    freeaddrinfo(l);
}

/* More lists at once than the monitor keeps room for, freed out of order, twice. */
static void check_many(void) {
    struct addrinfo *lists[40];
    const int n = 40;
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < n; i++)
            CHECK(resolve(i % 2 ? "logic" : "store", "80", AF_INET, SOCK_STREAM, 0, &lists[i]) ==
                  0);
        for (int i = 0; i < n; i++)
            CHECK(length(lists[i]) == (i % 2 ? 2 : 1));
        for (int i = 0; i < n; i++) {
            struct addrinfo *l = lists[i * 7 % n];
            CHECK(i * 7 % n % 2 || ip_of(l) == 0x64500002);
            freeaddrinfo(l);
        }
    }
}

void guest_addrinfo(void) {
    struct addrinfo *l;
    CHECK(getaddrinfo("STORE.", "6379", NULL, &l) == 0);
    CHECK(length(l) >= 2 && ip_of(l) == 0x64500002); /* stream, datagram, perhaps raw */
    CHECK(l->ai_socktype == SOCK_STREAM && l->ai_protocol == IPPROTO_TCP);
    freeaddrinfo(l);
    CHECK(getaddrinfo("front", NULL, NULL, &l) == 0 && ip_of(l) == 0x64500003);
    freeaddrinfo(l);
    check_hints();
    check_service();
    check_many();
    CHECK(getaddrinfo("127.0.0.1", "80", NULL, &l) == 0 && ip_of(l) == 0x7f000001);
    freeaddrinfo(l);
    CHECK(getaddrinfo(NULL, "80", NULL, &l) == 0);
    freeaddrinfo(l);
    CHECK(getaddrinfo(NULL, NULL, NULL, &l) == EAI_NONAME);
    CHECK(resolve("localhost", "80", AF_INET, SOCK_STREAM, 0, &l) == 0);
    CHECK(ip_of(l) == 0x7f000001);
    freeaddrinfo(l);
}

static void check_host(const struct hostent *h, const char *name, uint32_t ip) {
    CHECK(h && strcmp(h->h_name, name) == 0 && h->h_aliases && !h->h_aliases[0]);
    CHECK(h->h_addrtype == AF_INET && h->h_length == 4 && h->h_addr_list[0]);
    CHECK(ntohl(*(uint32_t *)(void *)h->h_addr_list[0]) == ip);
}

static void check_nameinfo(void) {
    char host[64], service[16];
    struct sockaddr_in a = v4("100.80.0.2", 8080), gone = v4("100.80.99.99", 1);
    struct sockaddr *sa = (struct sockaddr *)&a;
    CHECK(getnameinfo(sa, sizeof a, host, sizeof host, service, sizeof service, NI_NUMERICSERV) ==
          0);
    CHECK(strcmp(host, "store") == 0 && strcmp(service, "8080") == 0);
    CHECK(getnameinfo(sa, sizeof a, host, sizeof host, NULL, 0, NI_NUMERICHOST) == 0);
    CHECK(strcmp(host, "100.80.0.2") == 0);
    CHECK(getnameinfo(sa, sizeof a, host, 3, NULL, 0, 0) == EAI_OVERFLOW);
    sa = (struct sockaddr *)&gone;
    CHECK(getnameinfo(sa, sizeof gone, host, sizeof host, NULL, 0, NI_NAMEREQD) == EAI_NONAME);
    CHECK(getnameinfo(sa, sizeof gone, host, sizeof host, NULL, 0, 0) == 0);
    CHECK(strcmp(host, "100.80.99.99") == 0);
}

void guest_hosts(void) {
    struct hostent host, *h;
    struct in_addr a = v4("100.80.0.4", 0).sin_addr;
    char bytes[512];
    int error = 0;
    check_host(gethostbyname("Store"), "store", 0x64500002);
    check_host(gethostbyname2("logic-0", AF_INET), "logic-0", 0x64500004);
    CHECK(gethostbyname2("store", AF_INET6) == NULL && h_errno == HOST_NOT_FOUND);
    CHECK(gethostbyname_r("store", &host, bytes + 1, sizeof bytes - 1, &h, &error) == 0);
    check_host(h, "store", 0x64500002);
    for (size_t room = 0; room < 34; room++)
        CHECK(gethostbyname_r("store", &host, bytes, room, &h, &error) == ERANGE && !h);
    CHECK(gethostbyname2_r("store", AF_INET, &host, bytes, sizeof bytes, &h, &error) == 0);
    check_host(h, "store", 0x64500002);
    check_host(gethostbyaddr(&a, sizeof a, AF_INET), "logic-0", 0x64500004);
    CHECK(gethostbyaddr_r(&a, sizeof a, AF_INET, &host, bytes, sizeof bytes, &h, &error) == 0);
    check_host(h, "logic-0", 0x64500004);
    h = gethostbyname("127.0.0.1"); /* libc's own */
    CHECK(h && *(unsigned char *)h->h_addr_list[0] == 127);
    check_nameinfo();
}

void guest_hostname(void) {
    struct utsname u;
    char name[65];
    int cut;
    CHECK(uname(&u) == 0 && strcmp(u.nodename, "front") == 0 && strcmp(u.sysname, "Linux") == 0);
    CHECK(gethostname(name, sizeof name) == 0 && strcmp(name, "front") == 0);
    CHECK(gethostname(name, 6) == 0 && strcmp(name, "front") == 0);
    memset(name, 'x', sizeof name);
    cut = gethostname(name, 4);
#ifdef __GLIBC__
    CHECK(cut == -1 && errno == ENAMETOOLONG && memcmp(name, "fronx", 5) == 0);
#else
    CHECK(cut == 0 && strcmp(name, "fro") == 0);
#endif
}

#ifdef __GLIBC__
/* Names of the network and others in one list; freed by the usual function. */
void guest_addrinfo_a(void) {
    struct gaicb ours = {.ar_name = "store", .ar_service = "80"};
    struct gaicb theirs = {.ar_name = "127.0.0.1", .ar_service = "80"};
    struct gaicb *list[] = {&ours, NULL, &theirs}, *one[] = {&ours};
    CHECK(getaddrinfo_a(GAI_WAIT, list, 3, NULL) == 0);
    CHECK(gai_error(&ours) == 0 && ip_of(ours.ar_result) == 0x64500002);
    CHECK(gai_error(&theirs) == 0 && ip_of(theirs.ar_result) == 0x7f000001);
    freeaddrinfo(ours.ar_result);
    freeaddrinfo(theirs.ar_result);
    CHECK(getaddrinfo_a(GAI_NOWAIT, one, 1, NULL) == 0 && gai_error(&ours) == 0);
    CHECK(gai_suspend((const struct gaicb **)one, 1, NULL) == EAI_ALLDONE);
    freeaddrinfo(ours.ar_result);
    ours.ar_service = "no-such-service";
    CHECK(getaddrinfo_a(GAI_WAIT, one, 1, NULL) == 0 && gai_error(&ours) == EAI_SERVICE);
}
#else
void guest_addrinfo_a(void) {}
#endif
