// SPDX-License-Identifier: Apache-2.0

package aws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// The instance metadata service, version 2 (EC2 User Guide, "Use the Instance
// Metadata Service to access instance metadata").
const (
	metadataDefault = "http://169.254.169.254"
	metadataTime    = 2 * time.Second // for one answer
	metadataPause   = 250 * time.Millisecond
	tokenLife       = 6 * time.Hour
	refreshBefore   = 5 * time.Minute  // that credentials end: the next are there by then
	renewPause      = 10 * time.Second // after an attempt that failed
	maxMetadata     = 16 << 10
)

// token opens the metadata.
type token struct {
	value string
	until time.Time
}

func metadataEndpoint() string {
	if set := os.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT"); set != "" {
		return strings.TrimRight(set, "/")
	}
	return metadataDefault
}

// credentials are those of the environment, as functions have them, or the role's
// of this instance.
func (c *Client) credentials(ctx context.Context) (aws.Credentials, error) {
	id, key := os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
	if id != "" && key != "" {
		return aws.Credentials{AccessKeyID: id, SecretAccessKey: key, SessionToken: os.Getenv("AWS_SESSION_TOKEN")}, nil
	}
	if os.Getenv("AWS_LAMBDA_FUNCTION_NAME") != "" {
		return aws.Credentials{}, fmt.Errorf("%w: a function's are in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and it has none: do not clear its environment", ErrNoCredentials)
	}
	if known, ok := c.known(); ok {
		return known, nil
	}
	c.renewing.Lock()
	defer c.renewing.Unlock()
	known, ok := c.known()
	if ok { // who was first has them
		return known, nil
	}
	fresh, err := c.roleCredentials(ctx)
	switch {
	case err == nil:
		c.keep(fresh, fresh.Expires.Add(-refreshBefore))
		return fresh, nil
	case known.HasKeys() && time.Now().Before(known.Expires):
		c.keep(known, time.Now().Add(renewPause))
		return known, nil
	}
	return aws.Credentials{}, err
}

// known are the role's credentials as they were given last, and whether they need
// not be renewed.
func (c *Client) known() (aws.Credentials, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.role, c.role.HasKeys() && time.Now().Before(c.renewAt)
}

func (c *Client) keep(role aws.Credentials, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.role, c.renewAt = role, until
}

const rolePath = "/latest/meta-data/iam/security-credentials/"

func (c *Client) roleCredentials(ctx context.Context) (aws.Credentials, error) {
	name, err := c.metadata(ctx, rolePath)
	if err == nil {
		if name, _, _ = strings.Cut(strings.TrimSpace(name), "\n"); name == "" || strings.ContainsAny(name, "/?#% ") {
			err = errAbsent
		}
	}
	switch {
	case errors.Is(err, errAbsent):
		return aws.Credentials{}, fmt.Errorf("%w: this instance has no role (yet): give it an instance profile", ErrNoCredentials)
	case err != nil:
		return aws.Credentials{}, fmt.Errorf("%w: neither AWS_ACCESS_KEY_ID is set nor do instance metadata answer: %w", ErrNoCredentials, err)
	}
	said, err := c.metadata(ctx, rolePath+name)
	if err != nil {
		return aws.Credentials{}, fmt.Errorf("%w: role %s: %w", ErrNoCredentials, name, err)
	}
	found, err := parseRole([]byte(said))
	if err != nil {
		return found, fmt.Errorf("%w: role %s: %w", ErrNoCredentials, name, err)
	}
	return found, nil
}

// parseRole never says what it has read: there are keys in it.
func parseRole(data []byte) (aws.Credentials, error) {
	var said struct {
		Code, Message                       string
		AccessKeyID, SecretAccessKey, Token string
		Expiration                          time.Time
	}
	if json.Unmarshal(data, &said) != nil {
		return aws.Credentials{}, errors.New("the instance metadata are not what was expected")
	}
	if said.AccessKeyID == "" || said.SecretAccessKey == "" {
		return aws.Credentials{}, fmt.Errorf("the instance metadata have no credentials (%s): let EC2 assume the role (its trust policy)",
			clean(strings.TrimSpace(said.Code+" "+said.Message)))
	}
	return aws.Credentials{AccessKeyID: said.AccessKeyID, SecretAccessKey: said.SecretAccessKey, SessionToken: said.Token,
		CanExpire: true, Expires: said.Expiration}, nil
}

// PublicAddress is this instance's, where it has one. Metadata that do not answer
// are asked again until ctx ends: they may come up after the network does.
func (c *Client) PublicAddress(ctx context.Context) (a netip.Addr, ok bool, err error) {
	for {
		said, err := c.metadata(ctx, "/latest/meta-data/public-ipv4")
		switch {
		case errors.Is(err, errAbsent):
			return netip.Addr{}, false, nil
		case err == nil:
			a, err := netip.ParseAddr(strings.TrimSpace(said))
			if err != nil || !a.Is4() {
				return netip.Addr{}, false, fmt.Errorf("instance metadata: public-ipv4 is %q and no IPv4 address", clean(said))
			}
			return a, true, nil
		}
		select {
		case <-time.After(metadataPause):
		case <-ctx.Done():
			return netip.Addr{}, false, fmt.Errorf("this instance's public address: %w: if this is no EC2 instance set public_address to an address, or leave it out", err)
		}
	}
}

// errAbsent: the instance has no such thing.
var errAbsent = errors.New("not in the instance metadata")

// metadata asks for one thing, with a token; a token that is refused is made anew.
func (c *Client) metadata(ctx context.Context, path string) (string, error) {
	for fresh := false; ; fresh = true {
		value, err := c.metadataToken(ctx, fresh)
		if err != nil {
			return "", err
		}
		data, status, err := c.ask(ctx, http.MethodGet, path, map[string]string{"X-Aws-Ec2-Metadata-Token": value})
		switch {
		case err != nil:
			return "", err
		case status == http.StatusOK:
			return data, nil
		case status == http.StatusNotFound:
			return "", errAbsent
		case status == http.StatusUnauthorized && !fresh:
		default:
			return "", fmt.Errorf("instance metadata at %s%s: status %d", c.metaURL, path, status)
		}
	}
}

func (c *Client) metadataToken(ctx context.Context, fresh bool) (string, error) {
	c.mu.Lock()
	known := c.token
	c.mu.Unlock()
	if !fresh && time.Now().Before(known.until) {
		return known.value, nil
	}
	life := fmt.Sprint(int(tokenLife.Seconds()))
	value, status, err := c.ask(ctx, http.MethodPut, "/latest/api/token", map[string]string{"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": life})
	if err == nil && (status != http.StatusOK || value == "") {
		err = fmt.Errorf("instance metadata at %s: no token: status %d: are they switched off for this instance?", c.metaURL, status)
	}
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token = token{value, time.Now().Add(tokenLife / 2)}
	return value, nil
}

func (c *Client) ask(ctx context.Context, method, path string, header map[string]string) (string, int, error) {
	ctx, cancel := context.WithTimeout(ctx, metadataTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, c.metaURL+path, nil)
	if err != nil {
		return "", 0, fmt.Errorf("instance metadata: %w", err)
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	answer, err := c.local.Do(r)
	if err != nil {
		return "", 0, fmt.Errorf("instance metadata at %s: %w: %w", c.metaURL, ErrUnreachable, plainly(err))
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(io.LimitReader(answer.Body, maxMetadata))
	if err != nil {
		return "", 0, fmt.Errorf("instance metadata at %s: %w: %w", c.metaURL, ErrUnreachable, plainly(err))
	}
	return string(data), answer.StatusCode, nil
}
