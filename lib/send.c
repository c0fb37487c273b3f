/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sendto, sendmsg, sendmmsg: the kernel's, but for MSG_FASTOPEN, which makes
 * them a connect. To an overlay address that is ours to make, and then it is as
 * with a kernel that has no cookie for the peer: first connected, then sent.
 */
#include <errno.h>
#include <limits.h>
#include <sys/uio.h>

#include "addr.h"
#include "entry.h"
#include "hooks.h"
#include "libc.h"
#include "sys.h"

static long kernel_sendto(int fd, const void *data, size_t size, int flags, const void *sa,
                          socklen_t len) {
    int saved = libc_errno();
    if (!libc()->sendto || !libc_has_errno())
        return sys_sendto(fd, data, size, flags, sa, len);
    return libc_without_errno(libc()->sendto(fd, data, size, flags, sa, len), saved);
}

static long kernel_sendmsg(int fd, const struct msghdr *m, int flags) {
    int saved = libc_errno();
    if (!libc()->sendmsg || !libc_has_errno())
        return sys_sendmsg(fd, m, flags);
    return libc_without_errno(libc()->sendmsg(fd, m, flags), saved);
}

long hook_sendto(int fd, const void *data, size_t size, int flags, const void *sa, socklen_t len) {
    union address to;
    long next = connect_to_send(fd, sa, len, flags, &to);
    if (next == SEND_TRANSLATED)
        return kernel_sendto(fd, data, size, flags, &to, len);
    if (next == SEND_CONNECTED)
        return kernel_sendto(fd, data, size, flags & ~MSG_FASTOPEN, NULL, 0);
    return next < 0 ? next : kernel_sendto(fd, data, size, flags, sa, len);
}

long hook_sendmsg(int fd, const struct msghdr *m, int flags) {
    struct msghdr copy;
    union address to;
    long next;
    if (!m || !readable(m, sizeof *m))
        return kernel_sendmsg(fd, m, flags);
    copy = *m;
    next = connect_to_send(fd, copy.msg_name, copy.msg_namelen, flags, &to);
    if (next == SEND_TRANSLATED) {
        copy.msg_name = &to;
    } else if (next == SEND_CONNECTED) {
        copy.msg_name = NULL;
        copy.msg_namelen = 0;
        flags &= ~MSG_FASTOPEN;
    }
    return next < 0 ? next : kernel_sendmsg(fd, next == SEND_AS_IS ? m : &copy, flags);
}

/* One after another, as the kernel does it; an error counts if it is the first's. */
long hook_sendmmsg(int fd, struct mmsghdr *all, unsigned count, int flags) {
    unsigned sent = 0;
    long n = 0;
    for (; sent < count && sent < IOV_MAX; sent++) {
        if (!readable(&all[sent], sizeof *all))
            n = -EFAULT;
        else
            n = hook_sendmsg(fd, &all[sent].msg_hdr, flags);
        if (n < 0)
            break;
        all[sent].msg_len = (unsigned)n;
    }
    return sent ? (long)sent : n;
}

/*
 * The data path: one flag is tested, and the rest is libc's, where these are
 * cancellation points.
 */

static ssize_t send_slowly(int fd, const void *data, size_t size, int flags, const void *sa,
                           socklen_t len) {
    if (flags & MSG_FASTOPEN)
        return libc_result(hook_sendto(fd, data, size, flags, sa, len));
    return libc_result(kernel_sendto(fd, data, size, flags, sa, len));
}

ENTRY(ssize_t, sendto,
      (int fd, const void *data, size_t size, int flags, const void *sa, socklen_t len)) {
    ssize_t (*send)(int, const void *, size_t, int, const void *, socklen_t) =
        LIBC_IF_FOUND(sendto);
    if (send && !(flags & MSG_FASTOPEN))
        return send(fd, data, size, flags, sa, len);
    return send_slowly(fd, data, size, flags, sa, len);
}

ENTRY(ssize_t, sendmsg, (int fd, const struct msghdr *m, int flags)) {
    ssize_t (*send)(int, const struct msghdr *, int) = LIBC_IF_FOUND(sendmsg);
    if (send && !(flags & MSG_FASTOPEN))
        return send(fd, m, flags);
    return libc_result(flags & MSG_FASTOPEN ? hook_sendmsg(fd, m, flags)
                                            : kernel_sendmsg(fd, m, flags));
}

ENTRY(int, sendmmsg, (int fd, struct mmsghdr *all, unsigned count, int flags)) {
    if (!(flags & MSG_FASTOPEN) && libc()->sendmmsg)
        return libc()->sendmmsg(fd, all, count, flags);
    return libc_result(hook_sendmmsg(fd, all, count, flags));
}
