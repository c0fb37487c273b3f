// SPDX-License-Identifier: Apache-2.0

package pack

import (
	"bytes"
	"strings"
)

// withInterpreter is the script with another program in its first line.
func withInterpreter(data []byte, program string, args []string) []byte {
	_, rest, found := bytes.Cut(data, []byte("\n"))
	line := "#!" + strings.Join(append([]string{program}, args...), " ")
	if found {
		line += "\n"
	}
	return append([]byte(line), rest...)
}
