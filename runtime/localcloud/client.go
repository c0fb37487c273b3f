// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// Client talks to the daemon of one network. It is safe for concurrent use.
type Client struct {
	// Locate also fills in the machine pids of hosts and invocations. It reads all
	// of /proc for each question: whoever asks for many nodes has no time for it.
	Locate bool

	info NetworkInfo
	dir  netDir
	http *http.Client
}

func newClient(info NetworkInfo) *Client {
	c := &Client{info: info, dir: netDir(info.Directory)}
	c.http = &http.Client{Transport: &http.Transport{DialContext: c.dial, MaxIdleConnsPerHost: 2}}
	return c
}

func (c *Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	base, held, err := hiddenBase(string(c.dir))
	if err != nil {
		return nil, err
	}
	defer held.Close()
	return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(base, socketName))
}

// Info describes the client's network.
func (c *Client) Info() NetworkInfo { return c.info }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// do sends in as JSON and reads the answer into out; either may be nil.
func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	_, answer, err := c.send(ctx, method, path, body, nil)
	if err != nil {
		return err
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("network %q: answer of its daemon: %w", c.info.Name, err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, path string, body []byte, header http.Header) (http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://local"+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var urlErr *url.Error
		if errors.As(err, &urlErr) {
			err = urlErr.Err
		}
		return nil, nil, fmt.Errorf("network %q: %w: %w: see %s", c.info.Name, ErrUnreachable, err, c.dir.join("cloud.log"))
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil, fmt.Errorf("network %q: its daemon broke off: %w: see %s", c.info.Name, err, c.dir.join("cloud.log"))
	}
	if resp.StatusCode >= 300 {
		failure := &apiError{}
		if err := json.Unmarshal(answer, failure); err != nil || failure.Message == "" {
			failure.Message = fmt.Sprintf("network %q: its daemon answers %s to %s %s", c.info.Name, resp.Status, method, path)
			if resp.StatusCode == http.StatusMethodNotAllowed {
				failure.Message = fmt.Sprintf("network %q was made by an earlier version of Boxer, whose daemon cannot do this (%s %s): "+
					"delete the network and create it again", c.info.Name, method, path)
			}
		}
		return nil, nil, failure
	}
	return resp.Header, answer, nil
}

// takeSource copies a source directory to where the daemon looks, "" if there
// is none. release removes what the daemon did not take.
func (c *Client) takeSource(dir string) (name, hash string, release func(), err error) {
	if dir == "" {
		return "", "", func() {}, nil
	}
	name = rand.Text()
	own := c.dir.join("incoming", name)
	if err := os.Mkdir(own, 0o700); err != nil {
		return "", "", nil, stateError(c.dir.stateDir(), err)
	}
	release = func() { _ = removeAll(own) }
	if hash, err = copySource(dir, filepath.Join(own, "source")); err != nil {
		release()
		return "", "", nil, err
	}
	return name, hash, release, nil
}

// outcomeTime is how long a request that makes something outlives its context.
const outcomeTime = 20 * time.Second

// outcome is a context for such a request. Breaking it off would leave the
// daemon with something its caller does not know of and so cannot take back.
func outcome(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx.Err() != nil {
		return context.WithCancel(ctx)
	}
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(outcomeTime, cancel) })
	return late, func() { stop(); cancel() }
}

// CreateHost starts a VM host and returns when it is set up and its bootstrap
// script runs; ErrExists while one of that slot runs. It learns what became of
// it even if ctx ends meanwhile.
func (c *Client) CreateHost(ctx context.Context, spec HostSpec) (Host, error) {
	return c.putHost(ctx, http.MethodPost, "/hosts", spec)
}

// UpdateHost changes what a running host of that slot runs and returns when its
// guest is started again, if it has to be; ErrNotFound if there is none. Launch,
// addresses and what the guest has written stay.
func (c *Client) UpdateHost(ctx context.Context, spec HostSpec) (Host, error) {
	return c.putHost(ctx, http.MethodPut, "/hosts/"+url.PathEscape(spec.Config.Slot), spec)
}

func (c *Client) putHost(ctx context.Context, method, path string, spec HostSpec) (Host, error) {
	name, _, release, err := c.takeSource(spec.SourceDir)
	if err != nil {
		return Host{}, fmt.Errorf("host %q: %w", spec.Config.Slot, err)
	}
	defer release()
	spec.SourceDir = ""
	ctx, cancel := outcome(ctx)
	defer cancel()
	var h Host
	if err := c.do(ctx, method, path, hostRequest{spec, name}, &h); err != nil {
		return Host{}, err
	}
	return c.withMachinePIDs([]Host{h})[0], nil
}

// Host describes a host, ErrNotFound if there is none. A host that ended by
// itself or was killed stays known, as HostExited, until it is deleted.
func (c *Client) Host(ctx context.Context, slot string) (Host, error) {
	var h Host
	if err := c.do(ctx, http.MethodGet, "/hosts/"+url.PathEscape(slot), nil, &h); err != nil {
		return Host{}, err
	}
	return c.withMachinePIDs([]Host{h})[0], nil
}

// Hosts lists the hosts by slot, the seed included.
func (c *Client) Hosts(ctx context.Context) ([]Host, error) {
	var list []Host
	if err := c.do(ctx, http.MethodGet, "/hosts", nil, &list); err != nil {
		return nil, err
	}
	return c.withMachinePIDs(list), nil
}

func (c *Client) withMachinePIDs(list []Host) []Host {
	pids := c.machinePIDs()
	for i := range list {
		if list[i].PID != 0 {
			list[i].MachinePID = c.onMachine(pids, list[i].PID)
		}
	}
	return list
}

func (c *Client) onMachine(pids map[int]int, pid int) int {
	if c.info.plain() && c.Locate {
		return pid
	}
	return pids[pid]
}

func (c *Client) machinePIDs() map[int]int {
	if !c.Locate || c.info.plain() {
		return nil
	}
	p, err := c.dir.daemon()
	if err != nil {
		return nil
	}
	return machinePIDs(p.Inner.PID)
}

// DeleteHost stops a host (TERM, ten seconds to drain, then KILL) and forgets
// it; idempotent.
func (c *Client) DeleteHost(ctx context.Context, slot string) error {
	return c.do(ctx, http.MethodDelete, "/hosts/"+url.PathEscape(slot), nil, nil)
}

// StopHost is DeleteHost that leaves the logs of a node to be read.
func (c *Client) StopHost(ctx context.Context, slot string) error {
	return c.do(ctx, http.MethodDelete, "/hosts/"+url.PathEscape(slot)+"?"+keepLogsQuery, nil, nil)
}

// CreateFunction makes a function; ErrExists if there is one.
func (c *Client) CreateFunction(ctx context.Context, spec FunctionSpec) (Function, error) {
	return c.putFunction(ctx, http.MethodPost, "/functions", spec)
}

// UpdateFunction changes a function, ErrNotFound if there is none. Invocations
// under way go on as they began.
func (c *Client) UpdateFunction(ctx context.Context, spec FunctionSpec) (Function, error) {
	return c.putFunction(ctx, http.MethodPut, "/functions/"+url.PathEscape(spec.Name), spec)
}

func (c *Client) putFunction(ctx context.Context, method, path string, spec FunctionSpec) (Function, error) {
	name, hash, release, err := c.takeSource(spec.SourceDir)
	if err != nil {
		return Function{}, fmt.Errorf("function %q: %w", spec.Name, err)
	}
	defer release()
	spec.SourceDir = ""
	ctx, cancel := outcome(ctx)
	defer cancel()
	var f Function
	err = c.do(ctx, method, path, functionRequest{spec, name, hash}, &f)
	return f, err
}

// Function describes a function, ErrNotFound if there is none.
func (c *Client) Function(ctx context.Context, name string) (Function, error) {
	var f Function
	err := c.do(ctx, http.MethodGet, "/functions/"+url.PathEscape(name), nil, &f)
	return f, err
}

// Functions lists the functions by name.
func (c *Client) Functions(ctx context.Context) ([]Function, error) {
	var list []Function
	err := c.do(ctx, http.MethodGet, "/functions", nil, &list)
	return list, err
}

// SetDeclared notes what the network's controller was told of a function's
// replicas; nil: that it keeps none.
func (c *Client) SetDeclared(ctx context.Context, name string, declared json.RawMessage) error {
	return c.do(ctx, http.MethodPut, "/functions/"+url.PathEscape(name)+"/declared", declared, nil)
}

// DeleteFunction stops a function's invocations and forgets it; idempotent.
func (c *Client) DeleteFunction(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, "/functions/"+url.PathEscape(name), nil, nil)
}

// StopFunction is DeleteFunction that leaves the logs of its nodes to be read.
func (c *Client) StopFunction(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, "/functions/"+url.PathEscape(name)+"?"+keepLogsQuery, nil, nil)
}

// FunctionConfig fills in what the platform knows of a function node, for the
// payload of Invoke.
func (c *Client) FunctionConfig(n config.Node) config.Node {
	n.Version, n.Kind, n.Network = config.Version, config.KindFunction, c.info.Name
	n.SecretRef = "file:" + hostSecretFile
	n.SeedEndpoints = c.info.seedAddresses()
	n.Port, n.Site, n.UnderlayAddress = c.info.Port, "", ""
	if n.LaunchToken == "" {
		n.LaunchToken = rand.Text()
	}
	return n
}

// ClientConfig fills in what a node on this machine itself needs (boxer run
// --kind client).
func (c *Client) ClientConfig(n config.Node) config.Node {
	n.Version, n.Kind, n.Network = config.Version, config.KindClient, c.info.Name
	n.SecretRef = "file:" + c.info.SecretFile
	n.SeedEndpoints = c.info.SeedEndpoints
	n.Reach = config.ReachSeeds
	if n.LaunchToken == "" {
		n.LaunchToken = rand.Text()
	}
	return n
}

// Invoke sends one event to a function, asynchronously (Lambda's InvocationType
// Event), and returns its request id.
func (c *Client) Invoke(ctx context.Context, function string, payload []byte) (string, error) {
	header, _, err := c.send(ctx, http.MethodPost, "/2015-03-31/functions/"+url.PathEscape(function)+"/invocations",
		payload, http.Header{"X-Amz-Invocation-Type": {"Event"}})
	if err != nil {
		return "", err
	}
	return header.Get("X-Amzn-RequestId"), nil
}

// Invocations lists a function's invocations, oldest first.
func (c *Client) Invocations(ctx context.Context, function string) ([]Invocation, error) {
	var list []Invocation
	if err := c.do(ctx, http.MethodGet, "/functions/"+url.PathEscape(function)+"/invocations", nil, &list); err != nil {
		return nil, err
	}
	pids := c.machinePIDs()
	for i := range list {
		if list[i].PID != 0 {
			list[i].MachinePID = c.onMachine(pids, list[i].PID)
		}
	}
	return list, nil
}

// StopInvocation ends the running invocations of a slot and returns when their
// sandboxes are gone; idempotent.
func (c *Client) StopInvocation(ctx context.Context, function, slot string) error {
	return c.do(ctx, http.MethodDelete, "/functions/"+url.PathEscape(function)+"/invocations/"+url.PathEscape(slot), nil, nil)
}

// DisturbNAT lets something happen to the NAT of a slot's sandbox, for tests:
// NATFlush, NATCut, NATMend or NATReplace.
func (c *Client) DisturbNAT(ctx context.Context, function, slot, what string) error {
	return c.do(ctx, http.MethodPost, fmt.Sprintf("/functions/%s/invocations/%s/nat/%s", url.PathEscape(function), url.PathEscape(slot), url.PathEscape(what)), nil, nil)
}

// LogPath is the file with the output of a slot's guest.
func (c *Client) LogPath(slot string) string { return c.info.LogPath(slot) }

// NodeLogPath is the file with the messages of a slot's supervisor and
// bootstrap script.
func (c *Client) NodeLogPath(slot string) string { return nodeLog(c.dir, slot) }

// NodeTail returns the last lines of the messages of a slot's supervisor and
// bootstrap script.
func (c *Client) NodeTail(slot string, lines int) ([]string, error) {
	return tail(c.NodeLogPath(slot), lines)
}

// Tail returns the last lines of the output of a slot's guest.
func (c *Client) Tail(slot string, lines int) ([]string, error) { return c.info.Tail(slot, lines) }
