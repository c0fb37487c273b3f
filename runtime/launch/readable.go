// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"encoding/json"
	"regexp"
	"strings"
	"sync"
)

// A guest that fails on a function is reported either by its member record or,
// if that is gone already, by the failed invocation, whose error wraps the same
// words: the error's type, the node, and the end of its log. Users read the
// words alone, whichever came first.
var (
	invocationPrefix = pattern(`^\w+(Error|String): (node "[^"]*": )?`)
	invocationSuffix = pattern(`(?s)(; its last output: |: \{"level"|: \d{4}/\d\d/\d\d ).*$`)
)

// pattern is compiled when it is first used: every supervisor has this package in it.
func pattern(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}

// remedies of causes that are known by their words alone.
var remedies = map[string]string{
	"the guest ended with exit status": keepRunning,
	"layer checksum mismatch":          "The network's own copy of the layer is damaged: delete the network and create it again.",
}

// NewFailure says, in words for users, that a slot does not run because of cause.
func NewFailure(slot, cause string) *Failure {
	return Failure{Slot: slot, Cause: cause}.readable()
}

// readable is f in words for users.
func (f Failure) readable() *Failure {
	f.Cause = invocationSuffix().ReplaceAllString(invocationPrefix().ReplaceAllString(f.Cause, ""), "")
	for cause, remedy := range remedies {
		if f.Remedy == "" && strings.Contains(f.Cause, cause) {
			f.Remedy = remedy
		}
	}
	var output []string
	for _, line := range f.Output {
		line = humanLine(line)
		said := strings.Contains(line, f.Cause) || strings.HasPrefix(line, "boxer ") && strings.Contains(f.Cause, line)
		if line != "" && !said {
			output = append(output, line)
		}
	}
	f.Output = output
	return &f
}

// supervisorLine matches the standard library's log prefix and JSON after it.
var supervisorLine = pattern(`^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d )?\{".*\}$`)

// humanLine turns a log line of a supervisor into words, and into nothing if it
// reports no problem. Lines of guests stay as they are.
func humanLine(line string) string {
	if !supervisorLine().MatchString(line) {
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
