// SPDX-License-Identifier: Apache-2.0

//go:build !cli

package main

import (
	"context"
	"errors"
	"io"

	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

var errAWSLess = errors.New("--platform aws: this boxer is the one that nodes run: use the boxer of the release archive, or bin/boxer after make build")

// onAWS needs the SDK, which no supervisor has.
func onAWS(context.Context, string) (localcloud.NetworkInfo, error) {
	return localcloud.NetworkInfo{}, errAWSLess
}

func (*globals) logsOnAWS(context.Context, io.Writer, *logsFlags, string) error { return errAWSLess }
