// SPDX-License-Identifier: Apache-2.0

package node

import (
	"strings"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// rewrite puts the node's root before each of its places in text, which may be a
// path, a list of paths, or an option with one. A node with a file system of its
// own has no root: its places are where they are said to be.
func rewrite(cfg *config.Node, text string) string {
	root := cfg.Root
	if root == "" {
		return text
	}
	var out strings.Builder
	for i := 0; i < len(text); {
		switch {
		case strings.HasPrefix(text[i:], root) && endsAt(text, i+len(root)):
			// Somebody knows the place already.
			out.WriteString(root)
			i += len(root)
			for i < len(text) && !separates(text[i]) {
				out.WriteByte(text[i])
				i++
			}
			continue
		case begins(text, i):
			for _, place := range cfg.Places {
				if strings.HasPrefix(text[i:], place) && endsAt(text, i+len(place)) {
					out.WriteString(root)
					break
				}
			}
		}
		out.WriteByte(text[i])
		i++
	}
	return out.String()
}

// begins: a path may begin here, as it does at the start, after what is no part
// of a path (=, :, a quote), and after an option of one letter (-c/var/task/x).
func begins(text string, at int) bool {
	return at == 0 || separates(text[at-1]) || at == 2 && text[0] == '-'
}

// endsAt: a directory's name may end here.
func endsAt(text string, at int) bool {
	return at == len(text) || text[at] == '/' || separates(text[at])
}

// separates: no path goes on over c.
func separates(c byte) bool {
	return strings.IndexByte(" \t\n\"'`=:;,|&<>()[]{}@", c) >= 0
}

func rewriteAll(cfg *config.Node, texts []string) []string {
	all := make([]string, len(texts))
	for i, text := range texts {
		all[i] = rewrite(cfg, text)
	}
	return all
}
