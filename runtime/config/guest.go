// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
)

// ownVariable begins the names of the variables that Boxer sets for a guest.
const ownVariable = "BOXER_"

// ownPlaces of a node cannot be given by Files or Remap: the kernel's, and
// Boxer's own.
var ownPlaces = []string{"/proc", "/sys", "/dev", "/etc/boxer", "/run/boxer", "/var/lib/boxer", "/opt/boxer"}

// CheckVariable reports why name cannot be a variable of the guest's environment.
func CheckVariable(name string) error {
	switch {
	case name == "":
		return errors.New("the name of a variable is empty: write NAME = \"value\"")
	case strings.ContainsAny(name, "=\x00"):
		return fmt.Errorf("variable %q: a name holds neither = nor a null byte: choose another", name)
	case strings.HasPrefix(name, ownVariable):
		return fmt.Errorf("variable %q: names that begin with %s are set by Boxer itself; choose another", name, ownVariable)
	}
	return nil
}

// CheckPath reports why name cannot be a place in a node's file system.
func CheckPath(name string) error {
	switch {
	case name == "":
		return errors.New("the path is empty: write an absolute one, such as /etc/app.conf")
	case strings.ContainsRune(name, 0):
		return errors.New("the path holds a null byte: remove it")
	case !path.IsAbs(name):
		return fmt.Errorf("path %q is relative: write an absolute one, such as /etc/app.conf", name)
	case path.Clean(name) != name:
		return fmt.Errorf("path %q: write it as %q, without .., doubled slashes or one at the end", name, path.Clean(name))
	}
	return nil
}

// CheckFile reports why no file can be put at name.
func CheckFile(name string) error {
	if err := CheckPath(name); err != nil {
		return err
	}
	if name == "/" {
		return errors.New("path \"/\" is a directory: name a file below it")
	}
	for _, own := range ownPlaces {
		if name == own || strings.HasPrefix(name, own+"/") {
			return fmt.Errorf("path %q: %s belongs to the node itself; choose another place", name, own)
		}
	}
	return nil
}

// CheckFiles reports files that stand in each other's way.
func CheckFiles(files map[string]string) error {
	for name := range files {
		for parent := path.Dir(name); parent != "/" && parent != "."; parent = path.Dir(parent) {
			if _, taken := files[parent]; taken {
				return fmt.Errorf("%q lies below %q, which is a file of this list as well: rename one of them", name, parent)
			}
		}
	}
	return nil
}

// CheckUser reports why name cannot be the user of a guest.
func CheckUser(name string) error {
	switch {
	case name == "":
		return errors.New("the user is empty: name an account of the node, or leave it out")
	case strings.ContainsAny(name, ": \t\n/\x00"):
		return fmt.Errorf("user %q: want the name or number of an account, such as www-data or 33", name)
	}
	return nil
}

// CheckSource reports why cidr cannot say where connections may come from.
func CheckSource(cidr string) error {
	prefix, err := netip.ParsePrefix(cidr)
	if err != nil {
		return fmt.Errorf("cidrs: %q is no CIDR: write one such as 192.168.0.0/16, or 203.0.113.7/32 for one address", cidr)
	}
	if prefix != prefix.Masked() {
		return fmt.Errorf("cidrs: %q has bits beyond its length: write it as %s", cidr, prefix.Masked())
	}
	return nil
}

// CheckRestart reports why policy is no restart policy.
func CheckRestart(policy string) error {
	if !slices.Contains([]string{RestartNo, RestartOnFailure, RestartAlways}, policy) {
		return fmt.Errorf("restart %q: want no, on-failure or always", policy)
	}
	return nil
}

// checkGuest checks what the guest finds when it runs.
func (n *Node) checkGuest() error {
	for name, value := range n.Env {
		if err := CheckVariable(name); err != nil {
			return fmt.Errorf("env: %w", err)
		}
		if strings.ContainsRune(value, 0) {
			return fmt.Errorf("env: the value of %q holds a null byte", name)
		}
	}
	if n.WorkingDir != "" && !path.IsAbs(n.WorkingDir) {
		return fmt.Errorf("working_dir: %w", CheckPath(n.WorkingDir))
	}
	if n.User != "" {
		if err := CheckUser(n.User); err != nil {
			return err
		}
	}
	for name := range n.Files {
		if err := CheckFile(name); err != nil {
			return fmt.Errorf("files: %w", err)
		}
	}
	if err := CheckFiles(n.Files); err != nil {
		return fmt.Errorf("files: %w", err)
	}
	for from, to := range n.Remap {
		for _, name := range []string{from, to} {
			if err := CheckPath(name); err != nil {
				return fmt.Errorf("remap: %w", err)
			}
		}
	}
	return nil
}
