// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/boxer-overlay/boxer/layer"
	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// network is a Boxer network whose seed runs in the space around the machines.
type network struct {
	cloud   *cloud
	session *cluster.Session // an observer
}

func newNetwork(t *testing.T, s *space) *network {
	t.Helper()
	bin := os.Getenv("BOXER_BIN")
	if bin == "" {
		cannot(t, "BOXER_BIN does not say where boxer was built: run make test")
	}
	n := &network{cloud: newCloud(t, s)}
	one, other := runtimeLayers(t, bin)
	n.cloud.zips[runtimeARN], n.cloud.zips[laterARN] = one, other
	for _, url := range []string{packageARN, packageS3} {
		n.cloud.zips[url] = archive(t, "app.py", app)
	}
	return n
}

// startSeed starts a seed beside the machines.
func (n *network) startSeed(t *testing.T, s *space) {
	t.Helper()
	bin := os.Getenv("BOXER_BIN")
	s.ip(t, "address add "+strings.TrimSuffix(seedAddress, ":7717")+"/32 dev lo")
	dir := t.TempDir()
	node, err := config.New(config.Node{Network: "shop", Kind: config.KindSeed, Slot: "seed-0", SecretRef: "file:" + dir + "/secret",
		StateDir: dir + "/state", Site: "seeds", UnderlayAddress: strings.TrimSuffix(seedAddress, ":7717"), Metrics: config.MetricsOff})
	if err != nil {
		t.Fatal(err)
	}
	document, err := json.Marshal(node)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"secret": secret, "node.json": string(document)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log, err := os.Create(dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	seed := exec.Command(bin+"/boxer", "node", "--config", dir+"/node.json")
	seed.Stdout, seed.Stderr = log, log
	s.start(t, seed)
	t.Cleanup(func() {
		if data, _ := os.ReadFile(dir + "/log"); t.Failed() {
			t.Logf("seed:\n%s", data)
		}
	})
	n.observe(t, s, seedAddress, 10*time.Second)
}

// observe asks the seed there who is in the network, from now on.
func (n *network) observe(t *testing.T, s *space, seed string, within time.Duration) {
	t.Helper()
	at := through(t, s, seed)
	for deadline := time.Now().Add(within); ; time.Sleep(50 * time.Millisecond) {
		var err error
		n.session, err = cluster.Observe(t.Context(), cluster.Options{Network: "shop", Secret: []byte(secret), Seeds: []string{at}, Logger: zerolog.Nop()})
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// through is an address of this test's that leads to one inside.
func through(t *testing.T, s *space, to string) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := s.dial(context.Background(), "tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			go func() { _, _ = io.Copy(far, near); far.Close() }()
			go func() { _, _ = io.Copy(near, far); near.Close() }()
		}
	}()
	return ln.Addr().String()
}

// fetch is what makes a machine bring in what is at url.
func (n *network) fetch(url string) layer.Fetch {
	n.cloud.mu.Lock()
	defer n.cloud.mu.Unlock()
	sum := sha256.Sum256(n.cloud.zips[url])
	return layer.Fetch{URL: url, SHA256: hex.EncodeToString(sum[:])}
}

// runtimeLayers are the layer of this build, and what stands for one of another release: the
// same with a comment at the end of the zip.
func runtimeLayers(t *testing.T, bin string) (one, other []byte) {
	t.Helper()
	one, err := os.ReadFile(fmt.Sprintf("%s/boxer-layer-%s.zip", bin, runtime.GOARCH))
	if err != nil {
		t.Fatal(err)
	}
	other = append(bytes.Clone(one), "another"...)
	binary.LittleEndian.PutUint16(other[len(one)-2:], uint16(len(other)-len(one)))
	return one, other
}

func archive(t *testing.T, name, content string) []byte {
	t.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	header := &zip.FileHeader{Name: name, Method: zip.Deflate}
	header.SetMode(0o755)
	w, err := z.CreateHeader(header)
	if err == nil {
		_, err = io.WriteString(w, content)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// instance is a VM node as the provider makes one, not yet started.
func (n *network) instance(t *testing.T, s *space, number int, trouble, contents string, patience time.Duration, own string) *machine {
	t.Helper()
	slot := fmt.Sprintf("web-%d", number)
	return n.machine(t, s, number, trouble, layer.VM{Task: n.fetch(contents), Patience: patience}, own, config.Node{
		Kind: config.KindVM, Slot: slot, LaunchToken: "launch-" + slot, SeedEndpoints: []string{seedAddress},
		Argv: []string{"/var/task/app.py"}, User: layer.GuestUser, Files: map[string]string{"/etc/app/app.conf": "configured"},
		Publish: []config.Publish{{Port: 80, HostPort: 8080}},
	})
}

// machine is one with user data, for a node of the network.
func (n *network) machine(t *testing.T, s *space, number int, trouble string, vm layer.VM, own string, node config.Node) *machine {
	t.Helper()
	node.Network, node.SecretRef, node.Site, node.StateDir = "shop", "ssm:"+region+"/boxer/shop/secret", "vpc-1/sg-1", "/var/lib/boxer"
	node, err := config.New(node)
	if err != nil {
		t.Fatal(err)
	}
	document, err := json.Marshal(node)
	if err != nil {
		t.Fatal(err)
	}
	vm.Layer, vm.Region, vm.Node = n.fetch(runtimeARN), region, string(document)
	vm.Variables = map[string]string{"AWS_ENDPOINT_URL": "http://" + serviceAddress}
	data, err := layer.UserData(vm, []byte(own))
	if err != nil {
		t.Fatal(err)
	}
	if decoded, _, err := layer.DecodeUserData(data); err != nil || strings.Contains(fmt.Sprint(decoded), secret) {
		t.Errorf("the user data shows the secret: %+v, %v", decoded, err)
	}
	m := newMachine(t, s, number)
	n.cloud.set(m.address, func(i *instance) {
		i.id, i.userData, i.trouble = fmt.Sprintf("i-%017d", number), data, trouble
	})
	return m
}

// running waits until the node runs that has joined after that time.
func (n *network) running(m *machine, slot string, within time.Duration, after time.Time) (found cluster.Member) {
	m.t.Helper()
	m.until(within, slot+" that runs", func() bool {
		for _, member := range n.session.Members() {
			if member.Slot == slot && member.State == cluster.StateRunning && member.Since.After(after) {
				found = member
				return true
			}
		}
		return false
	})
	return found
}
