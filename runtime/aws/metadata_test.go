// SPDX-License-Identifier: Apache-2.0

package aws

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// instance is a metadata service that wants tokens.
type instance struct {
	*httptest.Server
	role    string
	public  string
	life    time.Duration // of credentials
	token   atomic.Value
	tokens  atomic.Int32
	roles   atomic.Int32
	refused atomic.Int32 // who came without a token
}

func newInstance(t *testing.T) *instance {
	t.Helper()
	i := &instance{role: "boxer-shop-vm", public: "203.0.113.7", life: time.Hour}
	i.token.Store("none")
	i.Server = httptest.NewServer(i)
	t.Cleanup(i.Close)
	plainEnvironment(t)
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", i.URL+"/")
	return i
}

func (i *instance) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/latest/api/token" {
		if r.Method != http.MethodPut || r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds") != "21600" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		i.token.Store(fmt.Sprint("token-", i.tokens.Add(1), "=="))
		fmt.Fprint(w, i.token.Load())
		return
	}
	if r.Method != http.MethodGet || r.Header.Get("X-Aws-Ec2-Metadata-Token") != i.token.Load() {
		i.refused.Add(1)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	switch {
	case r.URL.Path == "/latest/meta-data/public-ipv4" && i.public != "":
		fmt.Fprint(w, i.public)
	case r.URL.Path == rolePath && i.role != "":
		fmt.Fprint(w, i.role)
	case r.URL.Path == rolePath+i.role && i.role != "":
		fmt.Fprintf(w, `{"Code":"Success","LastUpdated":"2026-11-22T12:00:00Z","Type":"AWS-HMAC","AccessKeyId":"ASIA%d","SecretAccessKey":%q,"Token":"t","Expiration":%q}`,
			i.roles.Add(1), testKey, time.Now().Add(i.life).UTC().Format(time.RFC3339))
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func TestRoleOfAnInstance(t *testing.T) {
	i := newInstance(t)
	c := New()
	for range 2 { // the second from memory
		got, err := c.credentials(t.Context())
		if err != nil || got.AccessKeyID != "ASIA1" || got.SecretAccessKey != testKey || got.SessionToken != "t" {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	// Those that are about to end are renewed; while that fails they still serve.
	due := func(left time.Duration) { c.role.Expires, c.renewAt = time.Now().Add(left), time.Now() }
	due(time.Minute)
	if got, err := c.credentials(t.Context()); err != nil || got.AccessKeyID != "ASIA2" {
		t.Errorf("renewed: %+v, %v", got, err)
	}
	due(time.Minute)
	i.role = ""
	if got, err := c.credentials(t.Context()); err != nil || got.AccessKeyID != "ASIA2" {
		t.Errorf("while there are no others: %+v, %v", got, err)
	}
	due(-time.Minute)
	if got, err := c.credentials(t.Context()); !errors.Is(err, ErrNoCredentials) || !strings.Contains(err.Error(), "no role (yet): give it an instance profile") {
		t.Errorf("expired: %+v, %v", got, err)
	}
}

// Many launches at once need one answer.
func TestCredentialsAreRenewedOnce(t *testing.T) {
	i := newInstance(t)
	c := New()
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			if got, err := c.credentials(t.Context()); err != nil || got.AccessKeyID != "ASIA1" {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	all.Wait()
	if n := i.roles.Load(); n != 1 {
		t.Errorf("asked for %d times", n)
	}
}

// A token that the service has forgotten is made anew, once.
func TestMetadataToken(t *testing.T) {
	i := newInstance(t)
	c := New()
	for range 2 {
		if got, ok, err := c.PublicAddress(t.Context()); err != nil || !ok || got.String() != "203.0.113.7" {
			t.Fatalf("%v, %v, %v", got, ok, err)
		}
		i.token.Store("another")
	}
	if i.tokens.Load() != 2 || i.refused.Load() != 1 {
		t.Errorf("%d tokens, %d refused", i.tokens.Load(), i.refused.Load())
	}
}

func TestPublicAddress(t *testing.T) {
	i := newInstance(t)
	i.public = ""
	if _, ok, err := New().PublicAddress(t.Context()); ok || err != nil {
		t.Errorf("without one: %v, %v", ok, err)
	}
	i.public = "2001:db8::1"
	if _, ok, err := New().PublicAddress(t.Context()); ok || err == nil || !strings.Contains(err.Error(), "no IPv4 address") {
		t.Errorf("%v, %v", ok, err)
	}
}

// The metadata may come up later than the node.
func TestMetadataThatAreLate(t *testing.T) {
	i := newInstance(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	ln.Close()
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://"+address)
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, _, err := New().PublicAddress(short); err == nil || !strings.Contains(err.Error(), "connection refused: if this is no EC2 instance") {
		t.Errorf("never: %v", err)
	}
	late := &http.Server{Handler: i}
	time.AfterFunc(300*time.Millisecond, func() {
		if ln, err := net.Listen("tcp", address); err == nil {
			_ = late.Serve(ln)
		}
	})
	defer late.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if got, ok, err := New().PublicAddress(ctx); err != nil || !ok || got.String() != "203.0.113.7" {
		t.Errorf("late: %v, %v, %v", got, ok, err)
	}
}

// A function's credentials are in its environment, and nowhere else.
func TestCredentialsOfAFunction(t *testing.T) {
	i := newInstance(t)
	t.Setenv("AWS_LAMBDA_FUNCTION_NAME", "boxer-shop-logic")
	if _, err := New().credentials(t.Context()); !errors.Is(err, ErrNoCredentials) || i.tokens.Load() != 0 {
		t.Errorf("without: %v", err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", testID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", testKey)
	t.Setenv("AWS_SESSION_TOKEN", "t")
	if got, err := New().credentials(t.Context()); err != nil || got.AccessKeyID != testID || got.SessionToken != "t" || i.tokens.Load() != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// Credentials that AWS does not know any more are asked for again.
func TestStaleCredentialsAreDropped(t *testing.T) {
	stale := answer{400, "", `{"__type":"ExpiredTokenException","message":"The security token included in the request is expired"}`}
	newService(t, stale, answer{status: 200, body: parameterIs(secret)})
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	i := newInstanceBeside(t)
	c := New()
	if _, err := c.Parameter(t.Context(), "eu-west-1", "/s"); !errors.Is(err, ErrDenied) {
		t.Errorf("%v", err)
	}
	if got, err := c.Parameter(t.Context(), "eu-west-1", "/s"); err != nil || got != secret || i.roles.Load() != 2 {
		t.Errorf("%q, %v, %d times", got, err, i.roles.Load())
	}
}

// newInstanceBeside keeps the environment's endpoint of the services.
func newInstanceBeside(t *testing.T) *instance {
	t.Helper()
	i := &instance{role: "r", life: time.Hour}
	i.token.Store("none")
	i.Server = httptest.NewServer(i)
	t.Cleanup(i.Close)
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", i.URL)
	return i
}

func FuzzParseRole(f *testing.F) {
	f.Add([]byte(`{"Code":"Success","AccessKeyId":"a","SecretAccessKey":"b","Token":"c","Expiration":"2026-11-22T12:00:00Z"}`))
	f.Add([]byte(`{"Code":"AssumeRoleUnauthorizedAccess","Message":"EC2 cannot assume the role"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parseRole(data)
		if err == nil && !got.HasKeys() || err != nil && strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("%+v, %v", got, err)
		}
	})
}
