// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
)

// ContentsName is the layer that brings a VM node what is in its source_dir or package:
// a machine can fetch it as it does the network's, with no bucket.
func (n *Network) ContentsName(node string) string { return n.FunctionPrefix() + node }

// PutContents publishes the zip of a VM node's contents, unless the last version is
// that already.
func (c *Client) PutContents(ctx context.Context, n *Network, node string, zip []byte) (Layer, error) {
	name := n.ContentsName(node)
	sum := sha256.Sum256(zip)
	layer := Layer{SHA256: hex.EncodeToString(sum[:])}
	out, err := c.Lambda.ListLayerVersions(ctx, &lambda.ListLayerVersionsInput{LayerName: aws.String(name), MaxItems: aws.Int32(1)})
	if err != nil && !missing(err) {
		return Layer{}, failed("looking for the contents of node", node, err)
	}
	if err == nil && len(out.LayerVersions) > 0 {
		last, err := c.Lambda.GetLayerVersion(ctx, &lambda.GetLayerVersionInput{LayerName: aws.String(name), VersionNumber: aws.Int64(out.LayerVersions[0].Version)})
		if err == nil && last.Content != nil && aws.ToString(last.Content.CodeSha256) == base64.StdEncoding.EncodeToString(sum[:]) {
			layer.ARN = aws.ToString(last.LayerVersionArn)
			return layer, nil
		}
	}
	made, err := c.Lambda.PublishLayerVersion(ctx, &lambda.PublishLayerVersionInput{
		LayerName: aws.String(name), Content: &types.LayerVersionContentInput{ZipFile: zip},
		Description: aws.String(fmt.Sprintf("Contents of /var/task of VM node %s of the Boxer network %s", node, n.Name)),
	})
	if err != nil {
		return Layer{}, failed("publishing the contents of node", node, err)
	}
	layer.ARN = aws.ToString(made.LayerVersionArn)
	return layer, nil
}

// DeleteContents removes all versions of a VM node's contents but one, "" for none.
func (c *Client) DeleteContents(ctx context.Context, n *Network, node, keep string) error {
	name := aws.String(n.ContentsName(node))
	for pages := lambda.NewListLayerVersionsPaginator(c.Lambda, &lambda.ListLayerVersionsInput{LayerName: name}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if missing(err) {
			return nil
		}
		if err != nil {
			return failed("looking for the contents of node", node, err)
		}
		for _, v := range page.LayerVersions {
			if aws.ToString(v.LayerVersionArn) == keep {
				continue
			}
			if _, err := c.Lambda.DeleteLayerVersion(ctx, &lambda.DeleteLayerVersionInput{LayerName: name, VersionNumber: aws.Int64(v.Version)}); err != nil && !missing(err) {
				return failed("removing the contents of node", node, err)
			}
		}
	}
	return nil
}
