// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
)

// imageParameter is where AWS publishes its newest Amazon Linux 2023.
func imageParameter(arch string) string {
	name := map[string]string{"amd64": "x86_64", "arm64": "arm64"}[arch]
	return "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-" + name
}

// NewestImage is the newest Amazon Linux 2023 of an architecture: amd64 or arm64.
func (c *Client) NewestImage(ctx context.Context, arch string) (string, error) {
	name := imageParameter(arch)
	out, err := c.SSM.GetParameter(ctx, &ssm.GetParameterInput{Name: aws.String(name)})
	if err != nil {
		known := &Error{Doing: "looking for the newest Amazon Linux 2023 in", On: name, Err: err, Remedy: remedy(err)}
		if known.Remedy == "" {
			known.Remedy = "Name an AMI with image_id."
		}
		return "", known
	}
	return aws.ToString(out.Parameter.Value), nil
}
