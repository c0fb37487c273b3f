// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"encoding/json"
	"regexp"
	"strings"

	"github.com/boxer-overlay/boxer/runtime/launch"
)

// A guest that fails on a function is reported either by its member record or,
// if that is gone already, by the failed invocation, whose error wraps the same
// words: the error's type, the node, and the end of its log. Users read the
// words alone, whichever came first.
var (
	invocationPrefix = regexp.MustCompile(`^\w+(Error|String): (node "[^"]*": )?`)
	invocationSuffix = regexp.MustCompile(`(?s)(; its last output: |: \{"level"|: \d{4}/\d\d/\d\d ).*$`)
)

// readable returns the cause of a failure, what the guest said last, and what
// to do about it.
func readable(f *launch.Failure) (cause string, output []string, remedy string) {
	cause = invocationSuffix.ReplaceAllString(invocationPrefix.ReplaceAllString(f.Cause, ""), "")
	remedy = f.Remedy
	if remedy == "" && strings.Contains(cause, "the guest ended with exit status") {
		remedy = "A node runs a program that keeps running: check the command and its arguments."
	}
	for _, line := range f.Output {
		if line = humanLine(line); line != "" && !strings.Contains(line, cause) {
			output = append(output, line)
		}
	}
	return cause, output, remedy
}

// supervisorLine matches the standard library's log prefix and JSON after it.
var supervisorLine = regexp.MustCompile(`^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d )?\{".*\}$`)

// humanLine turns a log line of a supervisor into words, and into nothing if it
// reports no problem. Lines of guests stay as they are.
func humanLine(line string) string {
	if !supervisorLine.MatchString(line) {
		return line
	}
	var entry struct{ Level, Message, Error, ErrorMessage string }
	if json.Unmarshal([]byte(line[strings.IndexByte(line, '{'):]), &entry) != nil {
		return line
	}
	switch {
	case entry.ErrorMessage != "":
		return entry.ErrorMessage
	case entry.Level == "" || entry.Message == "":
		return line // the guest's own JSON
	case entry.Level == "debug" || entry.Level == "info":
		return ""
	case entry.Error != "":
		return entry.Message + ": " + entry.Error
	}
	return entry.Message
}
