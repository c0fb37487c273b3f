// SPDX-License-Identifier: Apache-2.0

//go:build cli

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/boxer-overlay/boxer/provider/cloud"
	"github.com/boxer-overlay/boxer/runtime/config"
)

func iamPolicyCommand(g *globals) *cobra.Command {
	var s cloud.Scope
	c := &cobra.Command{
		Use:   "iam-policy [flags]",
		Short: "Print the policy that terraform needs to apply networks on AWS",
		Long: `Print, as JSON, the IAM policy of the principal that applies a configuration
with platform = "aws". It allows what the provider calls and no more, on objects
of the network and prefix that are given: by their names, or by their tag
boxer:network. Reading your packages in S3 and images in ECR is not part of it.`,
		Example: `  boxer iam-policy --network shop --account 123456789012 >policy.json
  aws iam create-policy --policy-name shop --policy-document file://policy.json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if s.Network = g.network; g.network != "" {
				if err := config.CheckName(g.network); err != nil {
					return fmt.Errorf("iam-policy: network %w", err)
				}
			}
			out := json.NewEncoder(c.OutOrStdout())
			out.SetIndent("", "  ")
			out.SetEscapeHTML(false)
			return out.Encode(cloud.Applying(s))
		},
	}
	flags := c.Flags()
	flags.StringVar(&s.Prefix, "name-prefix", cloud.DefaultPrefix, "name_prefix of the networks")
	flags.StringVar(&s.Account, "account", "", "number of the AWS account (default: any)")
	flags.StringVar(&s.Region, "region", "", "AWS region (default: any)")
	return c
}

func layersCommand(g *globals) *cobra.Command {
	var config cloud.Config
	var prefix string
	var remove []string
	c := &cobra.Command{
		Use:   "layers [flags]",
		Short: "List or delete the layer versions that networks on AWS have left",
		Long: `List the versions of Boxer's Lambda layers in an AWS account and region. Networks
share them, and none is deleted with a network. --delete NAME:VERSION deletes one
that no network uses any more (terraform shows layer_arns): functions that have it
go on, but VM nodes can no longer fetch it when they start.`,
		Example: `  boxer layers --region eu-north-1
  boxer layers --delete boxer-runtime-amd64:3`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := cloud.Open(c.Context(), config)
			if err != nil {
				return err
			}
			found, err := client.Layers(c.Context(), prefix)
			if err != nil {
				return err
			}
			if len(remove) == 0 {
				return showLayers(c.OutOrStdout(), g.json, found)
			}
			for _, one := range remove {
				if err := deleteLayer(c, client, found, one); err != nil {
					return err
				}
			}
			return nil
		},
	}
	flags := c.Flags()
	flags.StringVar(&prefix, "name-prefix", cloud.DefaultPrefix, "name_prefix of the networks")
	flags.StringVar(&config.Region, "region", "", "AWS region (default: $AWS_REGION, else the profile's)")
	flags.StringVar(&config.Profile, "profile", "", "AWS profile (default: $AWS_PROFILE)")
	flags.StringSliceVar(&remove, "delete", nil, "delete this version, `NAME:VERSION` (repeatable)")
	return c
}

// deleteLayer deletes only what was listed: nothing of somebody else's.
func deleteLayer(c *cobra.Command, client *cloud.Client, found []cloud.LayerVersion, text string) error {
	i := slices.IndexFunc(found, func(v cloud.LayerVersion) bool {
		return v.Name+":"+strconv.FormatInt(v.Version, 10) == text || v.ARN == text
	})
	if i < 0 {
		return fmt.Errorf("no layer version %q: 'boxer layers' lists those there are", text)
	}
	return client.DeleteLayer(c.Context(), found[i].Name, found[i].Version)
}

func showLayers(out io.Writer, asJSON bool, found []cloud.LayerVersion) error {
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		if found == nil {
			found = []cloud.LayerVersion{}
		}
		return encoder.Encode(found)
	}
	var err error
	for _, v := range found {
		created, _, _ := strings.Cut(v.Created, "T")
		_, e := fmt.Fprintf(out, "%s:%d  %s  %s\n", v.Name, v.Version, created, v.Description)
		err = errors.Join(err, e)
	}
	return err
}
