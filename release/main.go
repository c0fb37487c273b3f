// SPDX-License-Identifier: Apache-2.0

// Command release packs what `make release` has built into the files that are
// published: archives that are the same bytes wherever they are made, named as
// the Terraform registry wants them, and their checksums.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	r := release{}
	flag.StringVar(&r.version, "version", "", "version to release, such as 0.1.0")
	flag.StringVar(&r.bin, "bin", "bin", "directory of what was built")
	flag.StringVar(&r.root, "root", ".", "directory of the sources")
	flag.StringVar(&r.out, "out", "dist", "directory to fill; what it holds is removed")
	flag.Parse()
	if r.version == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := r.pack(); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}
