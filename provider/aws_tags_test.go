// SPDX-License-Identifier: Apache-2.0

package provider

import "testing"

// TestTagTexts: what EC2 takes and other objects of a network do not is refused at plan.
func TestTagTexts(t *testing.T) {
	f := newFakePlatform()
	f.aws = true
	w := newWorkspace(t, withPlatform(f))
	w.refuses("aws", map[string]string{
		"gp3 with few iops":   vmOnAWS(`  root_volume = { iops = 300 }`),
		"tag that roles lack": vmOnAWS(`  tags = { "team" = "shop (Bern)" }`),
		"profile":             vmOnAWS(`  instance_profile = "arn:aws:iam::123456789012:instance-profile/teams/app"`),
		"profile name":        vmOnAWS(`  instance_profile = "an app"`),
		"tag of boxer":        vmOnAWS(`  tags = { "boxer:launch" = "mine" }`),
		"many tags":           functionOnAWS(`["sleep", "60"]`, `tags = { for i in range(48) : "t${i}" => "x" }`),
	})
	w.refuses("aws/network", map[string]string{
		"tag text": "resource \"boxer_network\" \"shop\" {\n  name = \"shop\"\n  tags = { \"a,b\" = \"c\" }\n}\n",
	})
}

// TestBootstrapOfAPackage: packages that were made for Lambda have the name that Boxer's
// layer needs, and Lambda prefers theirs.
func TestBootstrapOfAPackage(t *testing.T) {
	f := newFakePlatform()
	f.aws = true
	w := newWorkspace(t, withPlatform(f))
	w.write("go/bootstrap", "#!/bin/sh\n")
	w.refuses("aws", map[string]string{"bootstrap in a package": functionOnAWS(`["/var/task/bootstrap"]`, `source_dir = "./go"`)})
}
