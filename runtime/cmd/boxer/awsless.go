// SPDX-License-Identifier: Apache-2.0

//go:build !cli

package main

import (
	"context"
	"errors"

	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// onAWS needs the SDK, which no supervisor has.
func onAWS(context.Context, string) (localcloud.NetworkInfo, error) {
	return localcloud.NetworkInfo{}, errors.New("--platform aws: this boxer is the one that nodes run: use the boxer of the release archive, or bin/boxer after make build")
}
