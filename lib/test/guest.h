/* SPDX-License-Identifier: Apache-2.0 */
/* The programs that the monitor is preloaded into: one function a case. */
#ifndef BOXER_GUEST_H
#define BOXER_GUEST_H

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"

struct sockaddr_in v4(const char *ip, unsigned port);
struct sockaddr_in6 v6(const char *ip, unsigned port);
int tcp(int family);
unsigned echo_port(void);
/* Sends and gets back; ends the program when that fails. */
void exchange(int fd, const char *text);
/* "ip:port" of one side, port in figures; "[...]" for AF_INET6. */
const char *name_of(int fd, int peer);
int open_descriptors(void);

void guest_native(void);
void guest_native_v6(void);
void guest_native_nonblocking(void);
void guest_connect_errors(void);
void guest_direct(void);
void guest_direct_nonblocking(void);
void guest_direct_options(void);
void guest_direct_bound(void);
void guest_hold(void);
void guest_ended_early(void);
void guest_bind(void);
void guest_listen(void);
void guest_accept_native(void);
void guest_accept_signal(void);
void guest_accept_signal_v6(void);
void guest_accept_edge(void);
void guest_accept_limit(void);
void guest_accept_declined(void);
void guest_closed_stdio(void);
void guest_other_sockets(void);
void guest_hosts(void);
void guest_addrinfo(void);
void guest_hostname(void);
void guest_exec(void);
void guest_printenv(void);
void guest_plain(void);
void guest_silent(void);
void guest_supervisor_gone(void);
void guest_no_table(void);
void guest_hostile(void);
void guest_threads(void);
void guest_renewed(void);
void guest_cancel(void);
void guest_binding(void);
void guest_pointers(void);
void guest_datagrams(void);
void guest_limits(void);
void guest_changed_root(void);
void guest_refused_later(void);
void guest_waiting(void);
void guest_interrupted(void);
void guest_self(void);
void guest_syscall(void);
void guest_fastopen(void);
void guest_fastopen_errors(void);
void guest_shell(void);
void guest_addrinfo_a(void);
void guest_shared(void);

#endif
