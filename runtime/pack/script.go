// SPDX-License-Identifier: Apache-2.0

package pack

import (
	"bytes"
	"path/filepath"
	"strings"
)

// maxFirstLine is what Linux reads of a script's first line.
const maxFirstLine = 256

// interpreter is the program that the first line of a script names, with its
// arguments; empty if data is no script.
func interpreter(data []byte) (program string, args []string) {
	line, ok := bytes.CutPrefix(data[:min(len(data), maxFirstLine)], []byte("#!"))
	if !ok {
		return "", nil
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	words := strings.Fields(string(line))
	if len(words) == 0 {
		return "", nil
	}
	if filepath.Base(words[0]) != "env" {
		return words[0], words[1:]
	}
	for words = words[1:]; len(words) > 0 && (strings.HasPrefix(words[0], "-") || strings.Contains(words[0], "=")); {
		words = words[1:] // env's own
	}
	if len(words) == 0 {
		return "", nil
	}
	return words[0], words[1:]
}

// withInterpreter is the script with another program in its first line.
func withInterpreter(data []byte, program string, args []string) []byte {
	_, rest, found := bytes.Cut(data, []byte("\n"))
	line := "#!" + strings.Join(append([]string{program}, args...), " ")
	if found {
		line += "\n"
	}
	return append([]byte(line), rest...)
}
