// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"
	"net/url"
	"time"

	"github.com/boxer-overlay/boxer/provider/cloud"
	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

// awsPlatform runs VM nodes on EC2 and function nodes on Lambda. It keeps nothing
// on this machine: what a network is, its record on AWS says.
type awsPlatform struct {
	cloud  *cloud.Client
	layers LayerSource
}

func newAWSPlatform(client *cloud.Client, layers LayerSource) *awsPlatform {
	return &awsPlatform{cloud: client, layers: layers}
}

var errNotOnAWS = errors.New("not available on aws yet")

// MachineID is the account and the region: elsewhere this state describes nothing.
func (p *awsPlatform) MachineID() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return p.cloud.Place(ctx)
}

func (p *awsPlatform) CreateNetwork(ctx context.Context, spec networkSpec) (networkStatus, error) {
	return networkStatus{}, errNotOnAWS
}

func (p *awsPlatform) Network(ctx context.Context, name string) (networkStatus, error) {
	return networkStatus{}, errNotOnAWS
}

func (p *awsPlatform) UpdateNetwork(ctx context.Context, spec networkSpec) (networkStatus, error) {
	return networkStatus{}, errNotOnAWS
}

func (p *awsPlatform) DeleteNetwork(ctx context.Context, name string) error { return errNotOnAWS }

func (p *awsPlatform) Members(ctx context.Context, network string) ([]cluster.Member, error) {
	return nil, errNotOnAWS
}

func (p *awsPlatform) JoinToken(ctx context.Context, network, slot, service string, expires time.Time) (cluster.Token, error) {
	return cluster.Token{}, errNotOnAWS
}

func (p *awsPlatform) Await(ctx context.Context, network string, launches []launch.Want) ([]cluster.Member, error) {
	return nil, errNotOnAWS
}

// record is the network as its record on AWS says; errGone: there is none.
func (p *awsPlatform) record(ctx context.Context, network string) (*cloud.Network, error) {
	return nil, errNotOnAWS
}

// goneOr says errGone where AWS knows no such object.
func goneOr(err error) error {
	if errors.Is(err, cloud.ErrNotFound) {
		return errGone
	}
	return err
}

func isURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != ""
}
