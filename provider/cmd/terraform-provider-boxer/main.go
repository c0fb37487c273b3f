// SPDX-License-Identifier: Apache-2.0

// Command terraform-provider-boxer is started by Terraform or OpenTofu.
package main

import (
	"context"
	"flag"
	"log"

	"github.com/hashicorp/terraform-plugin-framework/providerserver"

	"github.com/boxer-overlay/boxer/provider"
)

var version = "dev" // set by the linker

func main() {
	debug := flag.Bool("debug", false, "wait for a debugger, and print how Terraform finds this process")
	flag.Parse()
	opts := providerserver.ServeOpts{Address: "registry.terraform.io/boxer-overlay/boxer", Debug: *debug}
	if err := providerserver.Serve(context.Background(), provider.New(version), opts); err != nil {
		log.Fatal(err)
	}
}
