// SPDX-License-Identifier: Apache-2.0

package node

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/boxer-overlay/boxer/runtime/config"
)

func TestPlaceFiles(t *testing.T) {
	dir := t.TempDir()
	link, linked := dir+"/link", dir+"/linked"
	if err := os.WriteFile(linked, []byte("of the machine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(linked, link); err != nil {
		t.Fatal(err)
	}
	uid := os.Geteuid()
	cfg := config.Node{Kind: config.KindVM, Files: map[string]string{dir + "/a/b/c": "deep", link: "own", dir + "/empty": ""}}
	if uid == 0 {
		cfg.User, uid = "1234", 1234
	}
	for range 2 { // as after a reboot
		if err := placeFiles(cfg); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range cfg.Files {
		info, err := os.Lstat(name)
		if err != nil {
			t.Fatal(err)
		}
		data, _ := os.ReadFile(name)
		if string(data) != want || info.Mode() != 0o644 || int(info.Sys().(*syscall.Stat_t).Uid) != uid {
			t.Errorf("%s: %q %v", name, data, info)
		}
	}
	for _, made := range []string{dir + "/a", dir + "/a/b"} {
		if info, err := os.Stat(made); err != nil || info.Mode().Perm() != 0o755 || int(info.Sys().(*syscall.Stat_t).Uid) != uid {
			t.Errorf("%s: %v %v", made, info, err)
		}
	}
	if data, _ := os.ReadFile(linked); string(data) != "of the machine" {
		t.Errorf("a link was followed: %q", data)
	}
	if left, _ := filepath.Glob(dir + "/.boxer-*"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	for name, files := range map[string]map[string]string{
		"a directory": {dir + "/a": ""}, "below a file": {linked + "/x": ""},
	} {
		cfg.Files = files
		if err := placeFiles(cfg); err == nil || !strings.Contains(err.Error(), "choose another path") {
			t.Errorf("%s: %v", name, err)
		}
	}
	cfg.User, cfg.Files = "no-such-user", map[string]string{dir + "/x": ""}
	if err := placeFiles(cfg); err == nil {
		t.Error("for nobody")
	}
}
