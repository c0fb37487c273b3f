// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Users inside hosts, as they are on the platforms these stand for.
const (
	vmUID        = 1000
	vmUser       = "boxer"
	functionUID  = 993
	functionGID  = 990
	functionUser = "sbx_user1051"
)

// become makes the guest another user, as it sees itself: on the machine it is
// who it always is.
func (s *initSpec) become(name string) error {
	account, err := user.Lookup(name)
	if err != nil {
		if account, err = user.LookupId(name); err != nil {
			account = &user.User{Username: "user" + name, Uid: name, Gid: name}
		}
	}
	uid, uidErr := strconv.Atoi(account.Uid)
	gid, gidErr := strconv.Atoi(account.Gid)
	if uidErr != nil || gidErr != nil {
		return fmt.Errorf("user %q: this machine has no such account, and local hosts have those of the machine: "+
			"name one of them, or a number", name)
	}
	if uid <= 0 || uid >= 65534 {
		return fmt.Errorf("user %q: guests of the local platform run as an ordinary user: name another account, or leave user out", name)
	}
	s.User, s.Group, s.UID, s.GID = account.Username, account.Username, uid, gid
	if group, err := user.LookupGroupId(account.Gid); err == nil {
		s.Group = group.Name
	}
	return nil
}

// guestHostUID is who guests are on the machine when the daemon is real root:
// in the range systemd leaves to nobody, so that no file is theirs. Without
// namespaces each network has a number of its own, after it. Otherwise they are
// the user who runs the daemon.
const guestHostUID = 1950000000

// isRealRoot: this process needs no user namespace and may use any uid.
func isRealRoot() bool {
	return hasGuestUID() && hasCapabilities(1<<unix.CAP_SYS_ADMIN|1<<unix.CAP_NET_ADMIN|1<<unix.CAP_SETUID|1<<unix.CAP_CHOWN)
}

// hasGuestUID: this process is root where guestHostUID is a user.
func hasGuestUID() bool {
	if os.Geteuid() != 0 {
		return false
	}
	data, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false
	}
	var inside, outside, size uint64
	_, err = fmt.Sscan(string(data), &inside, &outside, &size)
	return err == nil && size > guestHostUID+lastBlock
}

func hasCapabilities(needed uint32) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	return unix.Capget(&header, &caps[0]) == nil && caps[0].Effective&needed == needed
}

// mayBecomeGuest: this process may give guests a user of their own, and end them.
func mayBecomeGuest() bool {
	const needed = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_CHOWN | 1<<unix.CAP_KILL | 1<<unix.CAP_DAC_OVERRIDE
	return hasGuestUID() && hasCapabilities(needed)
}

// limits are the switches by which systems deny namespaces; those that hold for
// root come first.
var limits = []struct {
	path, denied, remedy string
	root                 bool
}{
	{"/proc/sys/user/max_user_namespaces", "0", "sudo sysctl -w user.max_user_namespaces=15000", true},
	{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (or an AppArmor profile with the userns permission for boxer)", false},
	{"/proc/sys/kernel/unprivileged_userns_clone", "0", "sudo sysctl -w kernel.unprivileged_userns_clone=1", false},
}

// whyDenied says what this machine denies, and how to allow it.
func whyDenied(rooted bool) (what, remedy string) {
	for _, l := range limits {
		value, err := os.ReadFile(l.path)
		switch {
		case err != nil || strings.TrimSpace(string(value)) != l.denied || rooted && !l.root:
		case l.root:
			return "this system lets nobody make user namespaces", "allow them: " + l.remedy
		default:
			return "this system denies user namespaces to ordinary users", "run as root, or allow it: " + l.remedy
		}
	}
	if rooted {
		return "this system lets not even root make its namespaces",
			"run Boxer outside this container, or give the container CAP_SYS_ADMIN and CAP_NET_ADMIN without a seccomp filter"
	}
	return "this system denies user namespaces", "run as root, or allow them: " +
		"sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns, " +
		"or the seccomp profile of the container"
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
	what, remedy := whyDenied(rooted)
	return fmt.Errorf("local cloud: %s: %w: %s", what, err, remedy)
}
