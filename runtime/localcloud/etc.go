// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// ownEtc are the files of /etc that are not the machine's.
var ownEtc = map[string]bool{
	"boxer": true, "group": true, "hostname": true, "hosts": true, "mtab": true, "nsswitch.conf": true,
	"passwd": true, "resolv.conf": true,
}

// cloneEtc takes the machine's other entries of /etc, one by one.
func (r *hostRoot) cloneEtc() error {
	entries, err := os.ReadDir(r.system("/etc"))
	if err != nil && r.spec.Root == "" {
		return err
	}
	r.links["/etc/mtab"] = "/proc/self/mounts"
	for _, e := range entries {
		path := "/etc/" + e.Name()
		switch {
		case ownEtc[e.Name()]:
		case e.Type() == fs.ModeSymlink:
			target, err := os.Readlink(r.system(path))
			if err != nil {
				return err
			}
			r.links[path] = target
		case e.IsDir() || e.Type().IsRegular():
			if err := r.clone(r.system(path), path, true); err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// writeEtc writes the files of /etc that are the host's own, and the secret.
func (r *hostRoot) writeEtc() error {
	if err := r.writeAccounts(); err != nil {
		return err
	}
	files := map[string]string{
		"hostname": r.spec.Slot + "\n",
		"hosts": fmt.Sprintf("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n%s %s\n",
			r.spec.Address, r.spec.Slot),
		// No name server: there is none on this network, and libc then asks
		// 127.0.0.1, which refuses at once.
		"resolv.conf":   "# The local cloud has no name server.\noptions timeout:1 attempts:1\n",
		"nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n",
	}
	for name, content := range files {
		if err := os.WriteFile(r.at("/etc/"+name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	secret := r.at(hostSecretFile)
	if err := os.WriteFile(secret, []byte(r.spec.Secret), 0o600); err != nil {
		return err
	}
	return os.Chown(secret, r.spec.MapUID, r.spec.MapGID)
}

// readAccounts notes who there is on the machine, while its files can be seen.
func (r *hostRoot) readAccounts() error {
	passwd, _ := os.ReadFile(r.system("/etc/passwd"))
	group, _ := os.ReadFile(r.system("/etc/group"))
	r.passwd, r.group = string(passwd), string(group)
	return nil
}

// writeAccounts writes who there is on the host: the machine's system accounts,
// and the guest.
func (r *hostRoot) writeAccounts() error {
	s := r.spec
	for name, content := range map[string]string{
		"passwd": systemAccounts(r.passwd, s.UID, s.User) + fmt.Sprintf("%s:x:%d:%d:Boxer guest:/tmp:/bin/sh\n", s.User, s.UID, s.GID),
		"group":  systemAccounts(r.group, s.GID, s.Group) + fmt.Sprintf("%s:x:%d:\n", s.Group, s.GID),
	} {
		if err := os.WriteFile(r.at("/etc/"+name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// systemAccounts are the machine's accounts below 1000, without the number and
// the name that are the guest's: programs look up nobody and www-data, people
// are no business of a guest.
func systemAccounts(machine string, without int, name string) string {
	var kept strings.Builder
	for line := range strings.Lines(machine) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) < 4 {
			continue
		}
		id, err := strconv.Atoi(fields[2])
		if err != nil || id == without || fields[0] == name || id >= 1000 && id < 65534 {
			continue
		}
		kept.WriteString(strings.TrimSpace(line) + "\n")
	}
	return kept.String()
}
