// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// An instance that is given an Elastic IP after it has booted is known there; that
// the metadata do not answer for a while changes nothing.
func TestAddressIsFollowed(t *testing.T) {
	none, first, second := netip.IPv4Unspecified(), netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")
	answers := []netip.Addr{none, none, first, {}, first, second, none}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var told []netip.Addr
	followAddress(ctx, time.Millisecond, none, func(context.Context) (netip.Addr, error) {
		if len(answers) == 0 {
			cancel()
			return none, nil
		}
		a := answers[0]
		if answers = answers[1:]; !a.IsValid() {
			return a, errors.New("no answer")
		}
		return a, nil
	}, func(a netip.Addr) { told = append(told, a) })
	if got := fmt.Sprint(told); got != "[203.0.113.1 203.0.113.2 0.0.0.0]" {
		t.Errorf("told of %s", got)
	}
}
