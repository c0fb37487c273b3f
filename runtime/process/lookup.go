// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// defaultPath is searched when the guest's environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// lookUp finds the command as a shell in the guest's own environment would.
func lookUp(s Spec) (string, error) {
	if len(s.Argv) == 0 || s.Argv[0] == "" {
		return "", &StartError{127, errors.New("no command to run")}
	}
	if s.Dir != "" {
		if info, err := os.Stat(s.Dir); err != nil {
			return "", &StartError{126, fmt.Errorf("working directory: %w: choose another, or create it on the node", err)}
		} else if !info.IsDir() {
			return "", &StartError{126, fmt.Errorf("working directory %s: %w: choose another", s.Dir, syscall.ENOTDIR)}
		}
	}
	name := s.Argv[0]
	if strings.Contains(name, "/") {
		if err := runnable(s.Dir, name); err != nil {
			return "", startError(name, name, err)
		}
		return name, nil
	}
	path := pathOf(s.Env)
	var denied error
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		candidate := filepath.Join(dir, name)
		if !strings.Contains(candidate, "/") {
			candidate = "./" + candidate // of a relative PATH element
		}
		err := runnable(s.Dir, candidate)
		if err == nil {
			return candidate, nil
		}
		if denied == nil && !missing(err) {
			denied = err
		}
	}
	if denied != nil {
		return "", startError(name, name, denied)
	}
	return "", &StartError{127, fmt.Errorf("command %q not found in %s: install it on the node, ship it in source_dir, or give its full path", name, path)}
}

func pathOf(env []string) string {
	path := defaultPath
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	return path
}

func missing(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR)
}

// runnable says why the file cannot be executed. What the kernel alone knows
// (access lists, mount flags) shows when it is.
func runnable(dir, file string) error {
	if !filepath.IsAbs(file) {
		file = filepath.Join(dir, file)
	}
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return syscall.EISDIR
	case info.Mode()&0o111 == 0:
		return syscall.EACCES
	}
	return nil
}

// startError words what the kernel said.
func startError(name, path string, err error) error {
	exists := runnable("", path) == nil
	switch {
	case errors.Is(err, syscall.ENOENT) && exists:
		return &StartError{126, fmt.Errorf("command %q cannot be run: the interpreter or loader it names is missing on this node: install it, or ship it in source_dir", name)}
	case missing(err):
		return &StartError{127, fmt.Errorf("command %q not found: there is no such file on this node: ship it in source_dir, or correct the path", name)}
	case errors.Is(err, syscall.EISDIR):
		return &StartError{126, fmt.Errorf("command %q cannot be run: it is a directory: name a program in it", name)}
	case errors.Is(err, syscall.EACCES):
		return &StartError{126, fmt.Errorf("command %q cannot be run: no permission to execute it; chmod +x may help", name)}
	case errors.Is(err, syscall.ENOEXEC):
		return &StartError{126, fmt.Errorf("command %q cannot be run: not a program for this machine; a script needs a first line such as #!/bin/sh", name)}
	}
	return &StartError{126, fmt.Errorf("command %q cannot be run: %w", name, err)}
}
