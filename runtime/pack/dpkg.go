// SPDX-License-Identifier: Apache-2.0

package pack

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// dpkg is the database of Debian's package manager, read as it lies on the disk.
type dpkg struct{ dir string }

var dpkgOf = dpkg{"/var/lib/dpkg"}

// installed is a package as far as it matters here.
type installed struct{ source, needs string }

// data are the files of the package that a program is of, and of those made of the
// same source that it needs (nginx: nginx-common), but for programs, libraries'
// headers, manuals and what only the machine's own services use. The name of the
// package is empty if the program is of none.
func (d dpkg) data(program string) (name string, files []string) {
	name = d.owner(program)
	if name == "" {
		return "", nil
	}
	for _, p := range d.family(name) {
		for _, file := range d.list(p) {
			if wanted(file) {
				files = append(files, file)
			}
		}
	}
	return name, files
}

// owner is the package with that file in its list.
func (d dpkg) owner(program string) string {
	names := []string{program}
	if short, ok := strings.CutPrefix(program, "/usr"); ok {
		names = append(names, short) // from before /bin was /usr/bin
	}
	lists, _ := filepath.Glob(filepath.Join(d.dir, "info", "*.list"))
	for _, list := range lists {
		data, err := os.ReadFile(list)
		if err != nil {
			continue
		}
		for _, file := range names {
			if bytes.Contains(data, []byte("\n"+file+"\n")) || bytes.HasPrefix(data, []byte(file+"\n")) {
				name, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(list), ".list"), ":")
				return name
			}
		}
	}
	return ""
}

func (d dpkg) list(name string) []string {
	found, _ := filepath.Glob(filepath.Join(d.dir, "info", name+":*.list"))
	for _, path := range append([]string{filepath.Join(d.dir, "info", name+".list")}, found...) {
		if data, err := os.ReadFile(path); err == nil {
			return strings.Split(strings.TrimSpace(string(data)), "\n")
		}
	}
	return nil
}

var packageName = regexp.MustCompile(`[a-z0-9][a-z0-9+.-]+`)

// family is a package, and what it needs of the same source.
func (d dpkg) family(name string) []string {
	all := d.status()
	family := []string{name}
	for i := 0; i < len(family); i++ {
		for _, alternative := range strings.FieldsFunc(all[family[i]].needs, func(r rune) bool { return r == ',' || r == '|' }) {
			other := packageName.FindString(strings.TrimSpace(alternative))
			if all[other].source == all[name].source && all[other].source != "" && !slices.Contains(family, other) {
				family = append(family, other)
			}
		}
	}
	return family
}

func (d dpkg) status() map[string]installed {
	all := map[string]installed{}
	file, err := os.Open(filepath.Join(d.dir, "status"))
	if err != nil {
		return all
	}
	defer file.Close()
	name := ""
	for lines := bufio.NewScanner(file); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ": ")
		p := all[name]
		switch key {
		case "Package":
			name = value
			p = installed{source: value}
		case "Source":
			p.source, _, _ = strings.Cut(value, " ")
		case "Depends", "Pre-Depends":
			p.needs += "," + value
		default:
			continue
		}
		all[name] = p
	}
	return all
}

// notData are the places of what a program does not read.
var notData = []string{
	"/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/", "/usr/games/", "/usr/include/", "/var/",
	"/lib/systemd/", "/usr/lib/systemd/", "/usr/lib/tmpfiles.d/", "/usr/lib/sysusers.d/",
	"/etc/apparmor.d/", "/etc/cron", "/etc/default/", "/etc/init.d/", "/etc/logrotate.d/", "/etc/systemd/", "/etc/ufw/",
	"/usr/share/applications/", "/usr/share/apport/", "/usr/share/bash-completion/", "/usr/share/bug/", "/usr/share/doc", "/usr/share/icons/",
	"/usr/share/info/", "/usr/share/lintian/", "/usr/share/locale/", "/usr/share/man/", "/usr/share/metainfo/", "/usr/share/vim/", "/usr/share/zsh/",
}

func wanted(file string) bool {
	for _, place := range notData {
		if strings.HasPrefix(file, place) {
			return false
		}
	}
	return !strings.HasSuffix(file, ".a") && !strings.Contains(file, "/pkgconfig/")
}
