# SPDX-License-Identifier: Apache-2.0
"""Tries what Lambda forbids and prints, per try, ok or the error's name."""
import ctypes, ctypes.util, errno, os, platform, resource, signal, socket, sys, threading

libc = ctypes.CDLL(None, use_errno=True)
x86 = platform.machine() == "x86_64"
CLONE_NEWUSER, SIGCHLD = 0x10000000, 17


def name(code):
    return errno.errorcode.get(code, str(code)) if code else "ok"


def call(x86_number, arm_number, *args):
    ctypes.set_errno(0)
    number = x86_number if x86 else arm_number
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return result, ctypes.get_errno() if result == -1 else 0


def report(what, f):
    """Tries f in a child, which may change or kill itself."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = f()
            if isinstance(answer, tuple):
                answer = name(answer[1])
        except OSError as e:
            answer = name(e.errno)
        os.write(writing, str(answer).encode())
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(pid, 0)
    text = os.read(reading, 1000).decode() or "killed by " + signal.Signals(os.WTERMSIG(status)).name
    os.close(reading)
    print(what + "=" + text, flush=True)


def prctl(option, *args):
    ctypes.set_errno(0)
    result = libc.prctl(option, *[ctypes.c_ulong(a) for a in args])
    return result, ctypes.get_errno() if result == -1 else 0


def clone(flags):
    result, code = call(56, 220, flags | SIGCHLD, 0, 0, 0, 0)
    if result == 0:
        os._exit(0)
    if result > 0:
        os.waitpid(result, 0)
    return result, code


def clone3():
    args = (ctypes.c_uint64 * 11)()
    args[0], args[4] = CLONE_NEWUSER, SIGCHLD
    result, code = call(435, 435, ctypes.byref(args), ctypes.sizeof(args))
    if result == 0:
        os._exit(0)
    return result, code


def attribute(kind):
    a = ctypes.create_string_buffer(128)
    ctypes.memmove(a, (ctypes.c_uint32 * 2)(kind, 128), 8)
    return a


def vm(number_x86, number_arm):
    buffer = ctypes.create_string_buffer(8)
    iov = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 8)
    return call(number_x86, number_arm, os.getpid(), ctypes.byref(iov), 1, ctypes.byref(iov), 1, 0)


def kernel_filter():
    """A filter that allows everything."""
    code = (ctypes.c_uint64 * 1)(0x7FFF0000 << 32 | 0x06)
    program = (ctypes.c_uint64 * 2)(1, ctypes.addressof(code))
    return code, program


def seccomp():
    prctl(38, 1, 0, 0, 0)
    code, program = kernel_filter()
    return call(317, 277, 1, 0, ctypes.byref(program))


def prctl_seccomp():
    prctl(38, 1, 0, 0, 0)
    code, program = kernel_filter()
    return prctl(22, 2, ctypes.addressof(program))


def low_port():
    socket.socket().bind(("127.0.0.1", 1023))
    return "ok"


def files():
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2048, 2048))
    except (ValueError, OSError):
        pass
    kept = []
    try:
        while len(kept) < 1100:
            kept.append(os.dup(0))
    except OSError as e:
        return name(e.errno) if kept and max(kept) == 1023 else "%s after %d" % (name(e.errno), max(kept))
    return "ok"


def tasks():
    """Threads, as many as there may be; the runtime's and this script's own count too."""
    limit = 1200
    started = []
    over = threading.Event()
    threading.stack_size(64 << 10)
    answer = "ok"
    try:
        for _ in range(limit):
            t = threading.Thread(target=over.wait, daemon=True)
            t.start()
            started.append(t)
    except RuntimeError:
        answer = "EAGAIN" if 900 < len(started) < 1024 else "EAGAIN after %d" % len(started)
    over.set()
    return answer


def shm_open():
    real = ctypes.CDLL(ctypes.util.find_library("rt") or None, use_errno=True)
    fd = real.shm_open(b"/boxer-test", os.O_CREAT | os.O_RDWR, 0o600)
    return "ok" if fd >= 0 else name(ctypes.get_errno())


def sem_open():
    real = ctypes.CDLL(ctypes.util.find_library("pthread") or None, use_errno=True)
    real.sem_open.restype = ctypes.c_void_p
    return "ok" if real.sem_open(b"/boxer-test", os.O_CREAT, 0o600, 1) else name(ctypes.get_errno())


def write_home():
    open(os.path.expanduser("~/x"), "w").close()
    return os.environ["HOME"]


def opened(path):
    def attempt():
        try:
            open(path, "a").close()
        except OSError as e:  # who owns the file depends on whose daemon it is
            return "refused" if e.errno in (errno.EACCES, errno.EROFS) else name(e.errno)
        return "ok"

    return attempt


report("ptrace", lambda: call(101, 117, 0, 0, 0, 0))
report("process_vm_readv", lambda: vm(310, 270))
report("process_vm_writev", lambda: vm(311, 271))
report("chroot", lambda: os.chroot("/") or "ok")
report("unshare", lambda: call(272, 97, CLONE_NEWUSER))
report("setns", lambda: call(308, 268, os.open("/proc/self/ns/uts", os.O_RDONLY), 0))
report("clone", lambda: clone(CLONE_NEWUSER))
report("clone-plain", lambda: clone(0))
report("clone3", clone3)
report("seccomp", seccomp)
report("prctl-seccomp", prctl_seccomp)
report("prctl-no-new-privs", lambda: prctl(38, 1, 0, 0, 0))
report("prctl-pdeathsig", lambda: prctl(1, signal.SIGKILL))
report("prctl-name", lambda: prctl(15, ctypes.addressof(ctypes.create_string_buffer(b"renamed"))))
report("bpf", lambda: call(321, 280, 0, attribute(0), 128))
report("perf", lambda: call(298, 241, attribute(1), 0, -1, -1, 0))
report("userfaultfd", lambda: call(323, 282, 1))
report("keyctl", lambda: call(250, 219, 0, -3, 0))
report("mount", lambda: call(165, 40, b"none", b"/tmp", b"tmpfs", 0, 0))
report("umount", lambda: call(166, 39, b"/tmp", 0))
report("pivot_root", lambda: call(155, 41, b"/", b"/"))
report("kexec", lambda: call(246, 104, 0, 0, 0, 0))
report("seteuid", lambda: os.seteuid(993) or "ok")
report("setgid", lambda: os.setgid(990) or "ok")
report("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1) and "ok")
report("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW) and "ok")
report("x32", lambda: call(0x40000000 + 39, 39))
report("low-port", low_port)
report("files", files)
report("tasks", tasks)
report("shm", shm_open)
report("sem", sem_open)
report("home", write_home)
report("hosts", opened("/etc/hosts"))
report("resolv", opened("/etc/resolv.conf"))
report("root", opened("/x"))
for line in open("/proc/self/status"):
    if line.startswith("Cap"):
        print(line.replace(":\t", "=").strip())
print("ids=%s" % (os.getresuid() + os.getresgid(),))
print("maps=%s" % " ".join(open("/proc/self/uid_map").read().split()[::2]))
print("the-end", flush=True)
