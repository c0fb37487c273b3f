// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"path/filepath"
	"strings"
)

// MaxFirstLine is what Linux reads of a script's first line.
const MaxFirstLine = 256

// Interpreter is the program that the first line of a script names, with its
// arguments; empty if data is no script.
func Interpreter(data []byte) (program string, args []string) {
	line, ok := bytes.CutPrefix(data[:min(len(data), MaxFirstLine)], []byte("#!"))
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
