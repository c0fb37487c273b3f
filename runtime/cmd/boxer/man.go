// SPDX-License-Identifier: Apache-2.0

//go:build man

package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra/doc"
)

// With the tag man, `boxer man-pages DIRECTORY` writes the manual pages. What
// that needs is of no use in a supervisor, so it is in no other build.
func init() {
	if len(os.Args) != 3 || os.Args[1] != "man-pages" {
		return
	}
	root := newRoot()
	root.DisableAutoGenTag = true
	// The date is SOURCE_DATE_EPOCH's, if that is set.
	header := &doc.GenManHeader{Section: "1", Source: "Boxer " + version, Manual: "Boxer"}
	err := os.MkdirAll(os.Args[2], 0o755)
	if err == nil {
		err = doc.GenManTree(root, header, os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "boxer man-pages:", err)
		os.Exit(exitFailed)
	}
	os.Exit(0)
}
