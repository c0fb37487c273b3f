// SPDX-License-Identifier: Apache-2.0

// Package aws is what nodes ask of AWS, and no more: a secret parameter, the
// launch of a function, the credentials for both, and their own public address.
// The SDK's clients would be a third of the supervisor; of the SDK it has the
// signature alone.
package aws

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	tryTime   = 5 * time.Second  // for one answer: a lost SYN must not cost more
	callTime  = 30 * time.Second // for all tries, where the caller has no deadline
	maxAnswer = 64 << 10         // of an answer; a parameter has 8 KB at most

	firstPause = 100 * time.Millisecond
	longPause  = 3 * time.Second
	tooSkewed  = time.Minute // what AWS accepts is five
)

// Client calls AWS as this machine or function.
type Client struct {
	http  *http.Client
	local *http.Client // for the metadata, which no proxy has
	sign  *v4.Signer

	renewing sync.Mutex // one asks for the role's credentials, for all

	mu      sync.Mutex
	token   token
	role    aws.Credentials
	renewAt time.Time     // not before it
	skew    time.Duration // of AWS' clock, if this one is wrong
	metaURL string
}

// New makes a client. It asks for nothing yet.
func New() *Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64 // as many as a controller launches at once
	direct := transport.Clone()
	direct.Proxy = nil
	return &Client{
		http: &http.Client{Transport: transport, CheckRedirect: stay}, local: &http.Client{Transport: direct, CheckRedirect: stay},
		sign: v4.NewSigner(), metaURL: metadataEndpoint(),
	}
}

// stay: what was signed for one place is sent to no other.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// endpoint of a service: as told, or the region's.
func endpoint(service, region string) (*url.URL, error) {
	for _, name := range []string{"AWS_ENDPOINT_URL_" + strings.ToUpper(service), "AWS_ENDPOINT_URL"} {
		if set := os.Getenv(name); set != "" {
			u, err := url.Parse(set)
			if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
				return nil, fmt.Errorf("%s %q: want http://HOST or https://HOST", name, set)
			}
			return u, nil
		}
	}
	suffix := "amazonaws.com"
	if strings.HasPrefix(region, "cn-") {
		suffix += ".cn"
	}
	return &url.URL{Scheme: "https", Host: service + "." + region + "." + suffix}, nil
}

// request is one call of an API.
type request struct {
	service, region string
	action          string // as IAM names it: ssm:GetParameter
	resource        string // for messages
	path            string
	header          map[string]string
	body            []byte
	hasty           bool // throttling is for the caller to wait out
}

// call sends a request until it is answered, refused for good, or ctx ends.
func (c *Client) call(ctx context.Context, r request) ([]byte, error) {
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTime)
		defer cancel()
	}
	var before error
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		data, err := c.try(ctx, r)
		if err == nil || !passes(err, r.hasty) {
			return data, err
		}
		if before != nil && ctx.Err() != nil { // cut short: what was said before says more
			return nil, before
		}
		before = err
		// Full jitter: those that were throttled together come back apart.
		wait := time.Duration(rand.Int64N(int64(pause))) + pause/4
		if deadline, _ := ctx.Deadline(); time.Until(deadline) <= wait {
			return nil, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// passes tells whether the same request may be answered soon.
func passes(err error, hasty bool) bool {
	var refused *Error
	if errors.As(err, &refused) {
		return refused.Status >= 500 || refused.skewed || refused.throttled() && !hasty
	}
	return errors.Is(err, ErrUnreachable)
}

// errStranger: somebody has answered who is not AWS.
var errStranger = errors.New("not trusted")

func (c *Client) try(ctx context.Context, r request) ([]byte, error) {
	credentials, err := c.credentials(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", r.action, r.resource, err)
	}
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	u, err := endpoint(r.service, r.region)
	if err != nil {
		return nil, err
	}
	u = u.JoinPath(r.path)
	out, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(r.body))
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", r.action, r.resource, err)
	}
	for name, value := range r.header {
		out.Header.Set(name, value)
	}
	hash := sha256.Sum256(r.body)
	if err := c.sign.SignHTTP(ctx, credentials, out, hex.EncodeToString(hash[:]), r.service, r.region, time.Now().Add(c.clock())); err != nil {
		return nil, fmt.Errorf("%s of %s: sign it: %w", r.action, r.resource, err)
	}
	answer, err := c.http.Do(out)
	if err != nil {
		remedy, kind := unreached(err)
		return nil, fmt.Errorf("%s of %s at %s: %w: %w: %s", r.action, r.resource, u.Host, kind, plainly(err), remedy)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("%s of %s at %s: %w: %w", r.action, r.resource, u.Host, ErrUnreachable, plainly(err))
	}
	if answer.StatusCode/100 == 2 {
		return data, nil
	}
	refused := refusal(answer.StatusCode, answer.Header.Get("X-Amzn-Errortype"), data)
	refused.Action, refused.Resource = r.action, r.resource
	c.learn(refused, answer.Header.Get("Date"), credentials)
	return nil, refused
}

func (c *Client) clock() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.skew
}

// learn takes from a refusal what makes the next try better: the time, where this
// clock is not set yet, and that the role's credentials are no good any more.
func (c *Client) learn(e *Error, date string, used aws.Credentials) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.stale() && c.role.AccessKeyID == used.AccessKeyID {
		c.role = aws.Credentials{}
	}
	there, err := http.ParseTime(date)
	if err != nil || !e.aboutTime() {
		return
	}
	if skew := time.Until(there); (skew - c.skew).Abs() > tooSkewed {
		c.skew, e.skewed = skew, true
	}
}
