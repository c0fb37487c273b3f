// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Users inside hosts, as they are on the platforms these stand for.
const (
	vmUID       = 1000
	functionUID = 993
	functionGID = 990
)

// guestHostUID is who guests are on the machine when the daemon is real root:
// in the range systemd leaves to nobody, so that no file is theirs. Otherwise
// they are the user who runs the daemon.
const guestHostUID = 1950000000

// isRealRoot: this process needs no user namespace and may use any uid.
func isRealRoot() bool {
	if os.Geteuid() != 0 {
		return false
	}
	data, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false
	}
	var inside, outside, size uint64
	if _, err := fmt.Sscan(string(data), &inside, &outside, &size); err != nil || size < guestHostUID+1 {
		return false
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return false
	}
	const needed = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_SETUID | 1<<unix.CAP_CHOWN
	return caps[0].Effective&needed == needed
}

// limits are the switches by which systems deny namespaces to ordinary users.
var limits = []struct{ path, denied, remedy string }{
	{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (or an AppArmor profile with the userns permission for boxer)"},
	{"/proc/sys/kernel/unprivileged_userns_clone", "0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"},
	{"/proc/sys/user/max_user_namespaces", "0", "sudo sysctl -w user.max_user_namespaces=15000"},
}

// explainNamespaces says what to do when the machine denies namespaces.
func explainNamespaces(rooted bool, err error) error {
	text := err.Error()
	denied := errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSPC) ||
		errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EUSERS) ||
		strings.Contains(text, syscall.EPERM.Error()) || strings.Contains(text, syscall.EACCES.Error())
	if !denied {
		return fmt.Errorf("local cloud: make its namespaces: %w", err)
	}
	if rooted {
		return fmt.Errorf("local cloud: this system lets not even root make its namespaces: %w: "+
			"run Boxer outside this container, or give the container CAP_SYS_ADMIN and CAP_NET_ADMIN without a seccomp filter", err)
	}
	for _, l := range limits {
		if value, readErr := os.ReadFile(l.path); readErr == nil && strings.TrimSpace(string(value)) == l.denied {
			return fmt.Errorf("local cloud: this system denies user namespaces to ordinary users: %w: run as root, or allow it: %s", err, l.remedy)
		}
	}
	return fmt.Errorf("local cloud: this system denies user namespaces: %w: run as root, or allow them: "+
		"sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns, "+
		"or the seccomp profile of the container", err)
}
