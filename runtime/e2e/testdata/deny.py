# SPDX-License-Identifier: Apache-2.0
"""deny.py COMMAND...: runs a command that cannot make user namespaces, as on
systems that deny them, by a seccomp filter that all it starts inherits."""

import ctypes
import os
import platform
import struct
import sys

UNSHARE, CLONE, CLONE3 = {"x86_64": (272, 56, 435), "aarch64": (97, 220, 435)}[platform.machine()]
NEWUSER = 0x10000000
ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
NUMBER, ARGUMENT = 0, 16  # offsets in struct seccomp_data

program = [
    (LOAD, 0, 0, NUMBER),
    (EQUAL, 5, 0, CLONE3),  # its flags are in memory: libc falls back to clone
    (EQUAL, 1, 0, UNSHARE),
    (EQUAL, 0, 2, CLONE),
    (LOAD, 0, 0, ARGUMENT),
    (ANY_BIT, 2, 0, NEWUSER),
    (RETURN, 0, 0, ALLOW),
    (RETURN, 0, 0, ENOSYS),
    (RETURN, 0, 0, EPERM),
]
code = b"".join(struct.pack("HBBI", *step) for step in program)
buffer = ctypes.create_string_buffer(code)
filter = struct.pack("HL", len(program), ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
if os.geteuid() != 0:
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter, 0, 0) != 0:
    raise OSError(ctypes.get_errno(), "install the filter")
os.execvp(sys.argv[1], sys.argv[1:])
