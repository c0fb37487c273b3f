// SPDX-License-Identifier: Apache-2.0

//go:build cli

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/boxer-overlay/boxer/provider/cloud"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// awsTime bounds what is asked of AWS.
const awsTime = 30 * time.Second

// onAWS is a network as its record on AWS says, with its secret: who may read both
// (ssm:GetParameter) is a member.
func onAWS(ctx context.Context, name string) (localcloud.NetworkInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, awsTime)
	defer cancel()
	client, err := cloud.Open(ctx, cloud.Config{})
	if err != nil {
		return localcloud.NetworkInfo{}, err
	}
	record, err := openNetwork(ctx, client, name)
	if err != nil {
		return localcloud.NetworkInfo{}, err
	}
	secret, err := client.Secret(ctx, name)
	if err != nil {
		return localcloud.NetworkInfo{}, err
	}
	return localcloud.NetworkInfo{
		Name: record.Name, CIDR: record.CIDR, Port: record.Port, SeedEndpoints: record.Endpoints, Alive: true, Version: record.RuntimeVersion,
		Elsewhere: &localcloud.Elsewhere{SecretRef: record.SecretRef(client.Region), Secret: secret},
	}, nil
}

// openNetwork reads the record of a network.
func openNetwork(ctx context.Context, client *cloud.Client, name string) (*cloud.Network, error) {
	record, err := client.Network(ctx, name)
	if errors.Is(err, cloud.ErrNotFound) {
		err = fmt.Errorf("network %q: there is none of that name in %s (AWS_REGION, AWS_PROFILE)", name, client.Region)
	}
	return record, err
}
