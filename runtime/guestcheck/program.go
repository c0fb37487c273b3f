// SPDX-License-Identifier: Apache-2.0

package guestcheck

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/runtime/loader"
)

// privileges: the bits and capabilities of a file have no effect on nodes.
func (r *Report) privileges(files ...string) error {
	for _, path := range files {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		has := ""
		if info.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 {
			has = "is set-user-ID or set-group-ID"
		}
		var capability [64]byte
		if n, err := unix.Getxattr(path, "security.capability", capability[:]); err == nil && n > 0 {
			has = "has capabilities"
		}
		if has != "" {
			r.find("privileges", Change, Change, fmt.Sprintf("%s %s, which has no effect on a node: guests have no privileges, and a program with more could not have the process monitor preloaded.", path, has),
				"Use it for what needs none (ports below 1024 need none on VMs).")
			return nil
		}
	}
	return nil
}

// own is what the program and its libraries are, and what they may do.
func (r *Report) own(f *loader.File, objects []*loader.File) error {
	switch {
	case f.Class != elf.ELFCLASS64 || f.Arch() != "amd64" && f.Arch() != "arm64":
		r.find("architecture", Cannot, Cannot, fmt.Sprintf("It is built for %s, %s.", f.Arch(), f.Class), "Use a build for amd64 or arm64 (64 bit).")
	case f.Go:
		r.find("go", Cannot, Cannot, "It is written in Go, whose programs make system calls themselves: the process monitor, which stands in for libc's functions, does not see their connections.",
			"None in this version: use another program, or reach it from outside with boxer forward.")
	case f.Static():
		r.find("static", Cannot, Cannot, "It is linked statically: the process monitor cannot be preloaded into it.", "Use a dynamically linked build, as distributions have.")
	}
	switch {
	case r.Libc == "musl":
		r.find("libc", Note, Change, "It is built for musl, which AWS' systems do not have.", r.pack())
	case loader.Newer(r.Glibc, lambdaGlibc):
		r.find("libc", Note, Change, fmt.Sprintf("It needs glibc %s; Amazon Linux 2023, on functions and by default on VMs, has %s.", r.Glibc, lambdaGlibc), r.pack())
	case !f.Static():
		r.find("package", Note, Change, "On AWS it has to come with the node: nothing of this machine is there.", r.pack())
	}
	if r.Size > limit-layerShare {
		r.find("size", "", Cannot, fmt.Sprintf("Program and libraries have %d MB; a function may have %d MB unpacked, and Boxer's layer takes up to %d of them.", r.Size>>20, limit>>20, layerShare>>20),
			"Use image_uri, a container image with up to 10 GB, or a VM.")
	}
	return r.behaviour(f, objects)
}

func (r *Report) pack() string {
	return "Use what boxer pack makes of it, with package and the command that it prints; or an image that has it."
}

// behaviour is what can be told from the functions that are called.
func (r *Report) behaviour(f *loader.File, objects []*loader.File) error {
	by := func(symbols ...string) (who, what string) {
		for _, o := range objects {
			if found := o.Uses(symbols...); len(found) > 0 {
				return filepath.Base(o.Path), strings.Join(found, ", ")
			}
		}
		return "", ""
	}
	if who, what := by("shm_open", "sem_open"); who != "" {
		r.find("shared memory", "", weightOf(who == filepath.Base(f.Path)), fmt.Sprintf("%s calls %s: a function has no /dev/shm, so that fails there.", who, what),
			"Have the program use files in /tmp or anonymous memory instead, if it can.")
	}
	for _, o := range objects {
		ring, err := usesRing(o)
		if err != nil {
			return err
		}
		if ring != "" {
			weight := weightOf(ring == ringLibrary)
			r.find("io_uring", weight, weight, fmt.Sprintf("%s %s: connections made with io_uring go past the process monitor, and functions deny it.", filepath.Base(o.Path), ring),
				"Turn io_uring off in the program, if it uses it for sockets.")
			break
		}
	}
	if r.Interpreter != "" {
		return nil // which has functions for all of it
	}
	if what := strings.Join(f.Uses("ptrace", "unshare", "setns", "mount", "chroot", "pivot_root", "seteuid", "setresuid"), ", "); what != "" {
		r.find("denied calls", "", Note, fmt.Sprintf("It calls %s, which functions deny.", what), "Nothing to do if it only does so as root, or does without.")
	}
	if who, _ := by("ares_init", "ares_init_options"); who != "" {
		r.find("resolver", Note, Note, fmt.Sprintf("%s has a resolver of its own (c-ares): it does not know the network's names.", who), "Give it addresses, or have it use libc's resolver.")
	}
	if who, what := by("fork", "vfork", "posix_spawn", "posix_spawnp"); who != "" {
		r.find("processes", "", Note, fmt.Sprintf("%s starts processes (%s), which are guests too: a function has 1,024 processes and threads at most.", who, what), "Keep the number of workers below that.")
	}
	if places := writes(f.Path); len(places) > 0 {
		r.find("files", "", Note, fmt.Sprintf("It names %s: on a function only /tmp can be written.", strings.Join(places, ", ")), "Have the program write to /tmp instead: an option, or its configuration. (Paths cannot be remapped in this version.)")
	}
	return nil
}

func weightOf(sure bool) Weight {
	if sure {
		return Change
	}
	return Note
}
