// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Where struct seccomp_data has what the filter looks at.
const (
	seccompNumber = 0
	seccompArch   = 4
	seccompArg0   = 16 // its lower half: both architectures are little-endian
)

// What the filter answers.
const (
	answerAllow = unix.SECCOMP_RET_ALLOW
	answerEPERM = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	// answerENOSYS: as on a kernel that was built without it.
	answerENOSYS = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// x32Numbers is where the system calls of the x32 ABI begin.
const x32Numbers = 0x40000000

var auditArch = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}

// deniedCalls fail with EPERM in a function's sandbox.
var deniedCalls = []uint32{
	// other processes
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE, unix.SYS_KCMP, unix.SYS_PIDFD_GETFD,
	// roots and namespaces
	unix.SYS_CHROOT, unix.SYS_PIVOT_ROOT, unix.SYS_UNSHARE, unix.SYS_SETNS,
	// mounts
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_MOUNT_SETATTR, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_FSOPEN,
	unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_QUOTACTL,
	unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_FANOTIFY_INIT,
	// users
	unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID, unix.SYS_SETGROUPS,
	// programs and keys in the kernel
	unix.SYS_SECCOMP, unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD,
	// the machine
	unix.SYS_REBOOT, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_ACCT, unix.SYS_VHANGUP,
}

// deniedOptions of prctl. Setting a parent-death signal is among them: a program
// that does is in for a surprise on Lambda.
var deniedOptions = []uint32{unix.PR_SET_NO_NEW_PRIVS, unix.PR_SET_SECCOMP, unix.PR_SET_PDEATHSIG}

// newNamespaces are clone's flags that make namespaces. clone3 has its flags in
// memory, where a filter cannot look: libc falls back to clone without it.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// sandboxFilter is the filter of a function's sandbox for one architecture.
// Numbers come before arguments: the kernel then knows by number alone which
// calls always pass, and does not run the filter for them.
func sandboxFilter(arch uint32) []bpf.Instruction {
	filter := []bpf.Instruction{
		bpf.LoadAbsolute{Off: seccompArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1},
		bpf.RetConstant{Val: answerENOSYS},
		bpf.LoadAbsolute{Off: seccompNumber, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: x32Numbers, SkipTrue: 1},
		bpf.RetConstant{Val: answerENOSYS},
	}
	for _, number := range deniedCalls {
		filter = append(filter, answerTo(number, answerEPERM)...)
	}
	filter = append(filter, answerTo(unix.SYS_CLONE3, answerENOSYS)...)
	filter = append(filter,
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_CLONE, SkipTrue: 4},
		bpf.LoadAbsolute{Off: seccompArg0, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: newNamespaces, SkipTrue: 1},
		bpf.RetConstant{Val: answerEPERM},
		bpf.RetConstant{Val: answerAllow},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_PRCTL, SkipTrue: 1},
		bpf.RetConstant{Val: answerAllow},
		bpf.LoadAbsolute{Off: seccompArg0, Size: 4})
	for _, option := range deniedOptions {
		filter = append(filter, answerTo(option, answerEPERM)...)
	}
	return append(filter, bpf.RetConstant{Val: answerAllow})
}

// answerTo answers when value is what was loaded last.
func answerTo(value, answer uint32) []bpf.Instruction {
	return []bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: value, SkipTrue: 1}, bpf.RetConstant{Val: answer}}
}

// installFilter holds the calling thread, and what it executes, to the filter
// of a function's sandbox. It needs CAP_SYS_ADMIN in the user namespace.
func installFilter() error {
	arch, ok := auditArch[runtime.GOARCH]
	if !ok {
		return fmt.Errorf("seccomp: no filter for %s", runtime.GOARCH)
	}
	raw, err := bpf.Assemble(sandboxFilter(arch))
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	program := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(code)
	if errno != 0 {
		return fmt.Errorf("seccomp: install the filter: %w", errno)
	}
	return nil
}
