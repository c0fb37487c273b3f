// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
)

// Architectures that there are layers for.
var Architectures = []string{"amd64", "arm64"}

// maxLayer is what Lambda takes as a direct upload.
const maxLayer = 50 << 20

// LambdaArch is Lambda's name of an architecture.
func LambdaArch(arch string) types.Architecture {
	if arch == "arm64" {
		return types.ArchitectureArm64
	}
	return types.ArchitectureX8664
}

// Runtimes that the layer can be of: its bootstrap is theirs.
var runtimes = []types.Runtime{types.RuntimeProvidedal2023, types.RuntimeProvidedal2}

// LayerVersion is one version of a layer, as it is listed.
type LayerVersion struct {
	Name        string `json:"name"`
	Version     int64  `json:"version"`
	ARN         string `json:"arn"`
	Description string `json:"description"`
	Created     string `json:"created"`
	Arch        string `json:"architecture"`
	SHA256      string `json:"sha256,omitempty"` // as its description says
}

func (c *Client) checkLayers(ctx context.Context, d *Design) ([]step, error) {
	var steps []step
	for _, arch := range Architectures {
		known, published := d.Layers[arch]
		if published && d.Upgrade == "" {
			there, err := c.layerThere(ctx, d.LayerName(arch), known)
			if err != nil {
				return nil, err
			}
			if there {
				continue
			}
		}
		steps = append(steps, step{"its layer for " + arch + " is gone", func(ctx context.Context) error {
			l, err := c.ensureLayer(ctx, d, arch)
			if err != nil {
				return err
			}
			layers := maps.Clone(d.Layers)
			if layers == nil {
				layers = map[string]Layer{}
			}
			layers[arch] = l
			d.Layers = layers
			return nil
		}})
	}
	return steps, nil
}

func (c *Client) layerThere(ctx context.Context, name string, l Layer) (bool, error) {
	version, err := strconv.ParseInt(l.ARN[strings.LastIndexByte(l.ARN, ':')+1:], 10, 64)
	if err != nil {
		return false, nil //nolint:nilerr // the record names none
	}
	_, err = c.Lambda.GetLayerVersion(ctx, &lambda.GetLayerVersionInput{LayerName: aws.String(name), VersionNumber: aws.Int64(version)})
	if missing(err) {
		return false, nil
	}
	return true, failed("looking for layer", l.ARN, err)
}

// ensureLayer returns the version that has the very content, publishing it if
// there is none. Who publishes at the same time ends with the same version: the
// lowest that has it.
func (c *Client) ensureLayer(ctx context.Context, d *Design, arch string) (Layer, error) {
	name := d.LayerName(arch)
	if d.Zip == nil {
		return Layer{}, &Error{Doing: "publishing layer", On: name, Err: errors.New("this program carries no layer")}
	}
	zip, err := d.Zip(arch)
	if err != nil {
		return Layer{}, failed("publishing layer", name, err)
	}
	sum := sha256.Sum256(zip)
	want := hex.EncodeToString(sum[:])
	switch known := d.Layers[arch]; {
	case len(zip) > maxLayer:
		return Layer{}, &Error{Doing: "publishing layer", On: name, Err: fmt.Errorf("it has %d bytes, and Lambda takes %d", len(zip), maxLayer),
			Remedy: "This is a bug of the provider's build: report it."}
	case known.SHA256 != "" && known.SHA256 != want && d.Upgrade == "":
		return Layer{}, &Error{Doing: "publishing layer", On: name, Err: fmt.Errorf("somebody deleted %s, and this provider carries another one", known.ARN),
			Remedy: "Leave runtime_version out or set it to the provider's, so that the nodes change to it; or use the provider of version " + d.RuntimeVersion + "."}
	}
	found, err := c.layerOf(ctx, name, want)
	if err != nil || found.ARN != "" {
		return found, err
	}
	out, err := c.Lambda.PublishLayerVersion(ctx, &lambda.PublishLayerVersionInput{
		LayerName: aws.String(name), Description: aws.String(describeLayer(cmp.Or(d.Upgrade, d.RuntimeVersion), want)),
		Content:                 &types.LayerVersionContentInput{ZipFile: zip},
		CompatibleArchitectures: []types.Architecture{LambdaArch(arch)}, CompatibleRuntimes: runtimes,
	})
	if err != nil {
		return Layer{}, failed("publishing layer", name, err)
	}
	if got := aws.ToString(out.Content.CodeSha256); got != "" && got != base64.StdEncoding.EncodeToString(sum[:]) {
		return Layer{}, &Error{Doing: "publishing layer", On: name, Err: fmt.Errorf("AWS received other content: its hash is %s", got), Remedy: "Apply again."}
	}
	mine := Layer{ARN: aws.ToString(out.LayerVersionArn), SHA256: want}
	first, err := c.layerOf(ctx, name, want)
	if err != nil || first.ARN == "" || first.ARN == mine.ARN {
		return mine, nil //nolint:nilerr // it is published
	}
	return first, c.DeleteLayer(ctx, name, out.Version)
}

const layerHash = "sha256:"

// describeLayer is what finds a version again: listings do not have the hash.
func describeLayer(version, sha string) string {
	return "Boxer " + version + " " + layerHash + sha
}

// layerOf is the lowest version of a layer with that content, none if its ARN is empty.
func (c *Client) layerOf(ctx context.Context, name, sha string) (Layer, error) {
	versions, err := c.versions(ctx, name)
	if err != nil {
		return Layer{}, err
	}
	for _, v := range versions {
		if v.SHA256 != sha {
			continue
		}
		// The description finds it, the hash proves it.
		out, err := c.Lambda.GetLayerVersion(ctx, &lambda.GetLayerVersionInput{LayerName: aws.String(name), VersionNumber: aws.Int64(v.Version)})
		if missing(err) {
			continue
		}
		if err != nil {
			return Layer{}, failed("reading layer", v.ARN, err)
		}
		code, err := base64.StdEncoding.DecodeString(aws.ToString(out.Content.CodeSha256))
		if err == nil && hex.EncodeToString(code) == sha {
			return Layer{ARN: v.ARN, SHA256: sha}, nil
		}
	}
	return Layer{}, nil
}

// versions of a layer, the lowest first.
func (c *Client) versions(ctx context.Context, name string) ([]LayerVersion, error) {
	var all []LayerVersion
	pages := lambda.NewListLayerVersionsPaginator(c.Lambda, &lambda.ListLayerVersionsInput{LayerName: aws.String(name)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if missing(err) {
			return nil, nil
		}
		if err != nil {
			return nil, failed("listing the versions of layer", name, err)
		}
		for _, v := range page.LayerVersions {
			one := LayerVersion{
				Name: name, Version: v.Version, ARN: aws.ToString(v.LayerVersionArn), Description: aws.ToString(v.Description), Created: aws.ToString(v.CreatedDate),
			}
			if _, sha, ok := strings.Cut(one.Description, layerHash); ok {
				one.SHA256 = sha
			}
			if len(v.CompatibleArchitectures) > 0 {
				one.Arch = string(v.CompatibleArchitectures[0])
			}
			all = append(all, one)
		}
	}
	slices.SortFunc(all, func(a, b LayerVersion) int { return cmp.Compare(a.Version, b.Version) })
	return all, nil
}

// Layers lists all versions of the layers of a prefix.
func (c *Client) Layers(ctx context.Context, prefix string) ([]LayerVersion, error) {
	n := &Network{Prefix: prefix}
	var all []LayerVersion
	for _, arch := range Architectures {
		versions, err := c.versions(ctx, n.LayerName(arch))
		if err != nil {
			return nil, err
		}
		all = append(all, versions...)
	}
	return all, nil
}

// DeleteLayer deletes one version. Functions that have it go on; VMs cannot fetch it any more.
func (c *Client) DeleteLayer(ctx context.Context, name string, version int64) error {
	_, err := c.Lambda.DeleteLayerVersion(ctx, &lambda.DeleteLayerVersionInput{LayerName: aws.String(name), VersionNumber: aws.Int64(version)})
	if missing(err) {
		return nil
	}
	return failed("deleting layer", name+":"+strconv.FormatInt(version, 10), err)
}
