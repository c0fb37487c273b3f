// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/boxer-overlay/boxer/layer"
)

// UpgradeNodes has the nodes of a network run from the layers that it has now. An
// instance sees it in its tags and starts its supervisor again, under its guest; of a
// function the next launches do.
func (c *Client) UpgradeNodes(ctx context.Context, n *Network) error {
	machines, err := c.instances(ctx, n.Name, PartVM, "", existing)
	if err != nil {
		return failed("looking for the VM nodes of network", n.Name, err)
	}
	for _, i := range machines {
		brings, ok := n.Layers[i.Arch]
		want := layer.Fetch{URL: brings.ARN, SHA256: brings.SHA256}.Tag()
		if !ok || i.Tags[layer.UpgradeTag] == want {
			continue
		}
		_, err := c.EC2.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{i.ID}, Tags: []types.Tag{{Key: aws.String(layer.UpgradeTag), Value: aws.String(want)}}})
		if err != nil {
			return failed("upgrading instance", i.ID, err)
		}
	}
	functions, err := c.functions(ctx, n)
	for i := 0; err == nil && i < len(functions); i++ {
		err = c.upgradeFunction(ctx, n, functions[i])
	}
	return err
}

// functions of a network.
func (c *Client) functions(ctx context.Context, n *Network) (found []Function, err error) {
	for pages := lambda.NewListFunctionsPaginator(c.Lambda, &lambda.ListFunctionsInput{}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, failed("looking for the functions of network", n.Name, err)
		}
		for _, f := range page.Functions {
			if !strings.HasPrefix(aws.ToString(f.FunctionName), n.FunctionPrefix()) {
				continue
			}
			has, err := c.FindFunction(ctx, aws.ToString(f.FunctionName))
			switch {
			case missing(err): // removed meanwhile
			case err != nil:
				return nil, err
			case has.Tags[TagNetwork] == n.Name:
				found = append(found, has)
			}
		}
	}
	return found, nil
}

func (c *Client) upgradeFunction(ctx context.Context, n *Network, has Function) error {
	want := []string{n.Layers[has.Arch].ARN}
	if has.Image != "" || want[0] == "" || slices.Equal(has.Layers, want) {
		return nil // an image has its layer in it
	}
	return c.changed(ctx, FunctionSpec{Name: has.Name, Role: has.Role}, func(ctx context.Context) error {
		_, err := c.Lambda.UpdateFunctionConfiguration(ctx, &lambda.UpdateFunctionConfigurationInput{FunctionName: aws.String(has.Name), Layers: want})
		return err
	})
}
