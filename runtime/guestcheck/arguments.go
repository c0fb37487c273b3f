// SPDX-License-Identifier: Apache-2.0

package guestcheck

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// foreground is what keeps well-known servers from going to the background, where
// their supervisor would take them for ended.
var foreground = map[string]struct {
	unless []string // an argument that contains one of these does it already
	add    []string
}{
	"nginx":   {[]string{"daemon off", "-t", "-v", "-V", "-h"}, []string{"-g", "daemon off;"}},
	"apache2": {[]string{"FOREGROUND", "-X", "-v", "-t"}, []string{"-DFOREGROUND"}},
	"httpd":   {[]string{"FOREGROUND", "-X", "-v", "-t"}, []string{"-DFOREGROUND"}},
	"php-fpm": {[]string{"-F", "--nodaemonize", "-v", "-t"}, []string{"-F"}},
	"sshd":    {[]string{"-D", "-d", "-t"}, []string{"-D"}},
	"named":   {[]string{"-f", "-g", "-v"}, []string{"-f"}},
}

func (r *Report) arguments(name string, args []string) {
	short := strings.TrimRight(name, "0123456789.")
	known, ok := foreground[name]
	if !ok {
		known, ok = foreground[short]
	}
	if r.Measured != nil && r.Measured.Exit == nil { // it was seen to stay
		ok = false
	}
	if ok && !slices.ContainsFunc(known.unless, func(word string) bool { return has(args, word) }) {
		r.Command = append(r.Command, known.add...)
		r.find("background", Change, Change, name+" goes to the background by itself (unless its configuration says otherwise), and its supervisor would take it for ended.",
			"Add "+strings.Join(quoted(known.add), ", ")+" to the command.")
	} else if word := daemonFlag(args); word != "" {
		r.find("background", Change, Change, fmt.Sprintf("%s asks it to go to the background, and its supervisor would take it for ended.", word), "Leave that out of the command.")
	}
	r.ports(args)
	r.paths(args)
}

func has(args []string, word string) bool {
	for _, a := range args {
		if a == word || len(word) > 2 && strings.Contains(a, word) || strings.Contains(word, " ") && fileSays(a, word) {
			return true
		}
	}
	return false
}

func quoted(words []string) []string {
	list := make([]string, len(words))
	for i, w := range words {
		list[i] = strconv.Quote(w)
	}
	return list
}

// fileSays: a is a file, such as a configuration, with these words.
func fileSays(a, words string) bool {
	const most = 1 << 20
	if info, err := os.Stat(a); err != nil || !info.Mode().IsRegular() || info.Size() > most {
		return false
	}
	data, err := os.ReadFile(a)
	return err == nil && bytes.Contains(data, []byte(words))
}

var daemonWords = regexp.MustCompile(`^--?(daemon|daemonize|background|detach)(=(yes|true|1|on))?$`)

func daemonFlag(args []string) string {
	for i, a := range args {
		if daemonWords.MatchString(a) && (i+1 == len(args) || !slices.Contains([]string{"no", "off", "false", "0"}, args[i+1])) {
			return a
		}
	}
	return ""
}

// A port in an argument with the one before it: of an address, or of an option or setting
// with such a name.
var portWord = regexp.MustCompile(`(?i)(?:[0-9a-z\]*. ]:|(?:port|listen|bind|-p)[= :]*)([0-9]{1,5})(?:$|[;,])`)

func (r *Report) ports(args []string) {
	var ports []int
	for i, a := range args {
		for _, m := range portWord.FindAllStringSubmatch(args[max(i-1, 0)]+" "+a, -1) {
			if n, err := strconv.Atoi(m[1]); err == nil && n > 0 && n < 65536 {
				ports = append(ports, n)
			}
		}
	}
	r.listens(ports, "The arguments name port")
}

// listens: which ports a function cannot have.
func (r *Report) listens(ports []int, who string) {
	slices.Sort(ports)
	for _, n := range slices.Compact(ports) {
		switch {
		case n < 1024:
			r.find("port", "", Change, fmt.Sprintf("%s %d: a function may not listen below 1024.", who, n), "Let it listen at 1024 or above, and clients connect there.")
		case n == 9001 || n == 3000:
			r.find("port", "", Change, fmt.Sprintf("%s %d, which is Lambda's own on functions.", who, n), "Let it listen at another one.")
		}
	}
}

// paths: directories and files to be made, which functions have in /tmp only.
func (r *Report) paths(args []string) {
	var places []string
	for _, a := range args {
		if _, value, ok := strings.Cut(a, "="); ok && strings.HasPrefix(a, "-") {
			a = value
		}
		if !filepath.IsAbs(a) || filepath.Clean(a) == "/" || theirs(a) {
			continue
		}
		if info, err := os.Stat(a); err != nil || info.IsDir() {
			places = append(places, a)
		}
	}
	if len(places) > 0 {
		r.find("paths", "", Note, fmt.Sprintf("The arguments name %s: on a function only /tmp can be written.", strings.Join(places, ", ")), "Name places in /tmp for what is written; boxer pack --include packs what is read.")
	}
}

func theirs(path string) bool {
	for _, dir := range []string{"/tmp", "/dev", "/proc", "/var/task", "/opt"} {
		if path == dir || strings.HasPrefix(path, dir+"/") {
			return true
		}
	}
	return false
}
