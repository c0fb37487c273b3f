// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// checkFiles says that fewer files may be open here than nodes need, before that
// shows as something else.
func checkFiles() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Max >= maxFiles {
		return nil //nolint:nilerr // then it shows where it matters
	}
	return fmt.Errorf("only %d files may be open here, and nodes of the local platform need %d: raise the hard limit "+
		"(ulimit -Hn as root, LimitNOFILE= of a systemd service, --ulimit nofile= of a container)", limit.Max, maxFiles)
}

// checkLoopback says that 127.0.0.1 does not work here: there the seeds are reached.
func checkLoopback() error {
	all, err := net.Interfaces()
	if err != nil {
		return nil //nolint:nilerr // then it shows where it matters
	}
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 && i.Flags&net.FlagUp != 0 {
			return nil
		}
	}
	return errors.New("this machine's loopback interface is down, and its seed is reached at 127.0.0.1: run 'ip link set lo up' as root")
}

// exhausted says what to do where text names a limit that was met, and not something denied.
func exhausted(text string) (remedy string) {
	for errno, remedy := range map[syscall.Errno]string{
		unix.EMFILE: "raise the limit of open files (ulimit -n)",
		unix.ENFILE: "raise the machine's limit of open files (sysctl fs.file-max)",
		unix.EAGAIN: "raise the limit of processes (ulimit -u), or end some",
		unix.ENOMEM: "free some memory, or raise its limit (ulimit -v)",
	} {
		if strings.Contains(text, errno.Error()) {
			return remedy
		}
	}
	return ""
}

// crash is why a Go program ended that died of its runtime: the lines before the
// traces of its goroutines, at the end of its log. Nothing if it did not.
func crash(log []string) []string {
	var reason []string
	since := 0 // what others had to say since: of an end, its parent says so
	for _, line := range log {
		switch {
		case strings.HasPrefix(line, "{"):
			if since++; since > 1 {
				reason = nil
			}
		case strings.HasPrefix(line, "runtime: "), strings.HasPrefix(line, "fatal error: "), strings.HasPrefix(line, "panic: "):
			reason, since = append(reason, line), 0
		}
	}
	return reason
}
