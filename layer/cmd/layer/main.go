// SPDX-License-Identifier: Apache-2.0

// Command layer builds the layer zip from a supervisor and a process monitor.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"

	"github.com/google/renameio/v2"

	"github.com/boxer-overlay/boxer/layer"
)

func main() {
	boxer := flag.String("boxer", "", "the boxer executable of the target architecture")
	library := flag.String("library", "", "libboxer.so of the target architecture")
	out := flag.String("out", "", "the zip to write")
	flag.Parse()
	if *boxer == "" || *library == "" || *out == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*out, layer.Files{Boxer: *boxer, Library: *library}); err != nil {
		fmt.Fprintln(os.Stderr, "layer:", err)
		os.Exit(1)
	}
}

func run(out string, files layer.Files) error {
	var zip bytes.Buffer
	if err := layer.Build(&zip, files); err != nil {
		return err
	}
	// Whole or not at all: a half-written zip would be embedded by the next build.
	if err := renameio.WriteFile(out, zip.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	return nil
}
