// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// What Lambda gives a sandbox, and no way to more.
const (
	maxFiles = 1024
	maxTasks = 1024 // processes and threads
)

// confineWord is what HostMain is called with to become a function's runtime.
const confineWord = "confine"

// confineCaps are what confineMain needs in the guest's user namespace, until
// it becomes the runtime.
var confineCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP}

// confined is the command by which init starts program in its sandbox. After
// the standard descriptors it finds so many cgroup.procs files to enter.
func confined(program string, groups int) []string {
	return []string{"boxer", "local-host", confineWord, strconv.Itoa(groups), program}
}

// confineMain lives between init and the runtime: already the guest's user, in
// its user namespace, not yet held to the sandbox's rules. It submits to them
// and executes the runtime; the rules then hold for all that descends from it.
func confineMain(args []string) int {
	if len(args) != 2 {
		fmt.Fprintln(os.Stderr, "boxer local-host is started by Boxer itself")
		return 125
	}
	groups, err := strconv.Atoi(args[0])
	if err == nil {
		err = confine(groups, args[1])
	}
	nodeLogger().Error().Err(err).Msg("confine the function's sandbox")
	return 125
}

// nodeLogger writes to the node's log from inside its host.
func nodeLogger() *zerolog.Logger {
	logger := zerolog.New(os.Stderr).With().Timestamp().Logger()
	return &logger
}

func confine(groups int, program string) error {
	runtime.LockOSThread() // filter and capabilities are a thread's, the one that executes
	for fd := specFD; fd < specFD+groups; fd++ {
		if _, err := unix.Write(fd, []byte("0")); err != nil {
			notLimited(fmt.Errorf("enter a control group: %w", err))
		}
		unix.Close(fd)
	}
	if tasksCountPerSandbox() {
		if err := syscall.Setrlimit(unix.RLIMIT_NPROC, &syscall.Rlimit{Cur: maxTasks, Max: maxTasks}); err != nil {
			return fmt.Errorf("limit tasks: %w", err)
		}
	} else {
		nodeLogger().Warn().Msg("processes and threads are not limited to 1024 here: it needs Linux 5.14 or newer")
	}
	if err := dropBoundingSet(); err != nil {
		return err
	}
	if err := installFilter(); err != nil {
		return err
	}
	if err := dropCapabilities(); err != nil {
		return err
	}
	if err := syscall.Exec(program, []string{program}, os.Environ()); err != nil {
		return fmt.Errorf("start %s: %w", program, err)
	}
	return nil
}

// notLimited says in the node's log that memory or CPU are not held to
// memory_size, and why.
func notLimited(err error) {
	// No warning: it is so on most machines, and no reason why a guest fails.
	nodeLogger().Info().Str("why", err.Error()).Msg("the sandbox is not held to its memory_size: this needs control groups that Boxer may use (docs/function-sandbox.md)")
}

// tasksCountPerSandbox: since Linux 5.14 RLIMIT_NPROC counts the tasks of a user
// in one user namespace, and every sandbox has its own. Before, it would count
// all that the user runs.
func tasksCountPerSandbox() bool {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return false
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 5 || major == 5 && minor >= 14
}

// dropBoundingSet gives up every capability for whatever is executed later.
func dropBoundingSet() error {
	for c := uintptr(0); c <= 63; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if err == unix.EINVAL {
			return nil
		}
		if err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	return nil
}

// dropCapabilities gives up every capability now; what is ambient goes with it.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}
