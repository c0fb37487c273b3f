// SPDX-License-Identifier: Apache-2.0

package process

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// FindUser looks a user up by name or number.
func FindUser(name string) (*user.User, error) {
	account, err := user.Lookup(name)
	if err == nil {
		return account, nil
	}
	if _, numberErr := strconv.ParseUint(name, 10, 31); numberErr == nil {
		if account, err := user.LookupId(name); err == nil {
			return account, nil
		}
		return &user.User{Uid: name, Gid: name, Username: name, HomeDir: "/"}, nil
	}
	return nil, fmt.Errorf("user %q: this node has no such account: name one of its own, or leave user out", name)
}

// credential is what a child needs to be name, nil if this process is already.
func credential(name string) (*syscall.Credential, error) {
	if name == "" {
		return nil, nil
	}
	account, err := FindUser(name)
	if err != nil {
		return nil, err
	}
	uid, uidErr := strconv.ParseUint(account.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(account.Gid, 10, 32)
	if uidErr != nil || gidErr != nil {
		return nil, fmt.Errorf("user %q: its ids %s and %s are no numbers", name, account.Uid, account.Gid)
	}
	if int(uid) == os.Geteuid() {
		return nil, nil
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("user %q: the supervisor runs as uid %d and cannot become another: leave user out", name, os.Geteuid())
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}
