// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/boxer-overlay/boxer/layer"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// Nodes are what runs in the account: a supervisor for every instance, with the node
// document of its user data, and one for every event of a function, behind a Runtime
// API. They run the layer version that was published (a build of this machine's
// architecture in its place where that is another), ask the emulator for the secret,
// with credentials of the instance's metadata or of the function's environment, and
// launch each other by Invoke.
//
// They are plain processes, each at a loopback address of its own: Elastic IPs are
// those that the emulator gives out, everything else is at 127.b.0.x. This shows
// neither the bootstrap script, nor NAT, the rules of security groups, Lambda's sandbox,
// or public addresses that differ from private ones. The guest of an instance is
// the user of the test. A supervisor that fails is not started again.
type Nodes struct {
	a     *AWS
	t     testing.TB
	dir   string
	block int
	bin   string // BOXER_BIN

	mu       sync.Mutex
	next     int
	running  []*process
	byID     map[string]*process // of instances
	public   map[string]string   // moto's public address -> ours
	code     map[string][]byte   // of functions, by their CodeSha256
	unpacked map[string]string   // layers, by hash
	closed   bool
	work     sync.WaitGroup
}

// cannot skips a test that this machine cannot run; CI's must.
func (a *AWS) cannot(why string, args ...any) {
	a.t.Helper()
	if os.Getenv("CI") != "" {
		a.t.Fatalf("CI requires this test: "+why, args...)
	}
	a.t.Skipf(why, args...)
}

// RunNodes starts a real node for everything that is launched from now on, until the
// test ends. It needs BOXER_BIN, which make test sets.
func (a *AWS) RunNodes() *Nodes {
	t := a.t
	t.Helper()
	bin := os.Getenv("BOXER_BIN")
	if bin == "" {
		a.cannot("BOXER_BIN is not set: run make test")
	}
	// Short, for sockets are in it.
	dir, err := os.MkdirTemp("/tmp", "bxaws")
	if err != nil {
		t.Fatal(err)
	}
	n := &Nodes{a: a, t: t, dir: dir, bin: bin, byID: map[string]*process{}, public: map[string]string{},
		code: map[string][]byte{}, unpacked: map[string]string{}}
	claim, block, err := claimBlock()
	if err != nil {
		t.Fatal(err)
	}
	n.block = block
	t.Cleanup(func() { _ = claim.Close() }) // when nothing is there any more
	t.Cleanup(n.end)
	if probe, err := withAccount(dir, "true"); err != nil {
		t.Fatal(err)
	} else if out, err := probe.CombinedOutput(); err != nil {
		a.cannot("no namespaces to run nodes in: %v: %s", err, out)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.observe = append(a.observe, n.see)
	a.invoke = n.invoke
	a.change = n.showAddresses
	a.metadata = http.StripPrefix(strings.TrimSuffix(metadataPath, "/"), http.HandlerFunc(n.metadata))
	return n
}

// claimBlock finds a block of loopback addresses that no network of plain processes
// on this machine has, and shows that it is taken as those do.
func claimBlock() (net.Listener, int, error) {
	for block := guestBlocks; block < 240; block += 2 {
		if l, err := net.Listen("tcp4", fmt.Sprintf("127.%d.255.254:49151", block)); err == nil {
			return l, block, nil
		}
	}
	return nil, 0, fmt.Errorf("all blocks of loopback addresses are in use: delete some local networks")
}

// end ends all nodes; a test that failed shows what they said last.
func (n *Nodes) end() {
	n.mu.Lock()
	n.closed = true
	all := slices.Clone(n.running)
	n.mu.Unlock()
	for _, p := range all {
		n.work.Go(p.stop)
	}
	n.work.Wait()
	if n.t.Failed() {
		for _, p := range all {
			n.t.Logf("%s at %s said last:\n%s", p.name, p.address, p.lastWords())
		}
	}
	if err := os.RemoveAll(n.dir); err != nil {
		n.t.Error(err)
	}
}

// task runs what a call has started, and end waits for.
func (n *Nodes) task(f func() error, about string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	n.work.Go(func() {
		if err := f(); err != nil {
			n.t.Errorf("%s: %v", about, err)
		}
	})
}

// see follows the calls that took effect.
func (n *Nodes) see(c Call, answer []byte) {
	switch c.String() {
	case "ec2.RunInstances":
		n.run(c, answer)
	case "ec2.TerminateInstances":
		for key, values := range c.Form() {
			if strings.HasPrefix(key, "InstanceId.") {
				n.terminate(values[0])
			}
		}
	case "lambda.CreateFunction", "lambda.UpdateFunctionCode":
		n.keepCode(c)
	case "lambda.DeleteFunction":
		n.stopFunction(FunctionName(functionPath.FindStringSubmatch(c.Path)[1]))
	}
}

// newProcess takes a place: an address and a directory.
func (n *Nodes) newProcess(name string) *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next++
	p := &process{
		name: name, root: filepath.Join(n.dir, fmt.Sprint(n.next)), ended: make(chan struct{}),
		address: fmt.Sprintf("127.%d.%d.%d", n.block, n.next>>8, n.next&255),
	}
	n.running = append(n.running, p)
	return p
}

// run starts a node for each instance that a call has made.
func (n *Nodes) run(c Call, answer []byte) {
	var made struct {
		Instances []struct {
			ID     string `xml:"instanceId"`
			Public string `xml:"ipAddress"`
		} `xml:"instancesSet>item"`
	}
	if err := xml.Unmarshal(answer, &made); err != nil {
		n.t.Errorf("the answer to RunInstances: %v", err)
		return
	}
	data, err := base64.StdEncoding.DecodeString(c.Form().Get("UserData"))
	if err != nil {
		n.t.Errorf("user data: %v", err)
		return
	}
	vm, _, err := layer.DecodeUserData(data)
	var doc config.Node
	if err == nil {
		err = json.Unmarshal([]byte(vm.Node), &doc)
	}
	for _, i := range made.Instances {
		p := n.newProcess(fmt.Sprintf("instance %s (%s)", i.ID, doc.Slot))
		n.mu.Lock()
		if strings.HasPrefix(doc.PublicAddress, "127.") { // its Elastic IP
			p.address = doc.PublicAddress
		} else if i.Public != "" {
			n.public[i.Public] = p.address
		}
		n.byID[i.ID] = p
		n.mu.Unlock()
		if err != nil { // an instance of somebody else
			p.say(err.Error())
			close(p.ended)
			continue
		}
		n.task(func() error { return n.startVM(p, i.ID, vm, doc) }, p.name)
	}
}

func (n *Nodes) startVM(p *process, id string, vm layer.VM, doc config.Node) error {
	place := p.place(doc.Files)
	doc.UnderlayAddress, doc.Shared, doc.Root, doc.Places = place.UnderlayAddress, true, p.root, place.Places
	if doc.StateDir != "" {
		doc.StateDir = p.root + doc.StateDir
	}
	for i := range doc.Publish {
		if at := &doc.Publish[i].HostAddress; *at == "" || *at == "0.0.0.0" {
			*at = p.address // all of them are not its own
		}
	}
	dir, err := n.layerDir(vm.Layer.SHA256)
	if err == nil && vm.Task.URL != "" {
		err = n.unpackTask(p, vm.Task.SHA256)
	}
	if err == nil {
		err = p.prepare(&doc)
	}
	if err != nil {
		close(p.ended)
		return err
	}
	env := []string{
		"AWS_ENDPOINT_URL=" + n.a.URL(), "AWS_EC2_METADATA_SERVICE_ENDPOINT=" + n.a.URL() + metadataPath + id,
		"HOME=" + p.root + "/tmp", "LANG=C.UTF-8", "PATH=" + os.Getenv("PATH"),
	}
	for name, value := range vm.Variables {
		env = append(env, name+"="+value)
	}
	return p.start("/", env, filepath.Join(dir, "bin", "boxer"), "node", "--config", p.root+layer.DefaultConfigFile)
}

func (n *Nodes) terminate(id string) {
	n.mu.Lock()
	p := n.byID[id]
	n.mu.Unlock()
	if p != nil {
		n.task(func() error { p.stop(); return nil }, "end "+p.name)
	}
}

// layerDir is where the layer of that hash (hexadecimal) is unpacked.
func (n *Nodes) layerDir(hash string) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if dir := n.unpacked[hash]; dir != "" {
		return dir, nil
	}
	data, err := n.a.published(hash)
	if err != nil {
		return "", err
	}
	dir, zip := filepath.Join(n.dir, "layer-"+hash[:8]), filepath.Join(n.dir, hash[:8]+".zip")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(zip, data, 0o600); err != nil {
		return "", err
	}
	if err := layer.Unpack(zip, dir, hash); err != nil {
		return "", err
	}
	if !runsHere(filepath.Join(dir, layer.BoxerPath)) {
		dir, zip = dir+"-here", filepath.Join(n.bin, "boxer-layer-"+runtime.GOARCH+".zip")
		err = os.Mkdir(dir, 0o755)
		if err == nil {
			err = layer.Unpack(zip, dir, "")
		}
	}
	n.unpacked[hash] = dir
	return dir, err
}

// published is the content that somebody published as a layer version.
func (a *AWS) published(hash string) ([]byte, error) {
	sum, err := hex.DecodeString(hash)
	if err != nil || len(sum) != sha256.Size {
		return nil, fmt.Errorf("%q is no SHA-256", hash)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	data := a.layers[base64.StdEncoding.EncodeToString(sum)]
	if data == nil {
		return nil, fmt.Errorf("nobody has published a layer with the SHA-256 %s", hash)
	}
	return data, nil
}

// runsHere: the ELF header names this machine's architecture.
func runsHere(program string) bool {
	file, err := os.Open(program)
	if err != nil {
		return false
	}
	defer file.Close()
	head := make([]byte, 20)
	if _, err := file.Read(head); err != nil || !bytes.HasPrefix(head, []byte("\x7fELF")) {
		return true // a script
	}
	return map[byte]string{0x3e: "amd64", 0xb7: "arm64"}[head[18]] == runtime.GOARCH
}

// showAddresses has answers of EC2 tell where instances really are.
func (n *Nodes) showAddresses(c Call, answer []byte) []byte {
	if c.Service != "ec2" {
		return answer
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for motos, ours := range n.public {
		answer = bytes.ReplaceAll(answer, []byte(">"+motos+"<"), []byte(">"+ours+"<"))
	}
	return answer
}

var metadataRequest = regexp.MustCompile(`^/(i-[0-9a-f]+)/latest/(.*)$`)

// metadata is IMDSv2, as far as nodes ask.
func (n *Nodes) metadata(w http.ResponseWriter, r *http.Request) {
	match := metadataRequest.FindStringSubmatch(r.URL.Path)
	if match == nil {
		http.NotFound(w, r)
		return
	}
	n.mu.Lock()
	p := n.byID[match[1]]
	n.mu.Unlock()
	const token = "emulated-token"
	switch {
	case p == nil:
		http.NotFound(w, r)
	case match[2] == "api/token" && r.Method == http.MethodPut:
		_, _ = w.Write([]byte(token))
	case r.Header.Get("X-Aws-Ec2-Metadata-Token") != token:
		http.Error(w, "IMDSv2 wants a token", http.StatusUnauthorized)
	case match[2] == "meta-data/iam/security-credentials/":
		_, _ = w.Write([]byte("role"))
	case match[2] == "meta-data/iam/security-credentials/role":
		_ = json.NewEncoder(w).Encode(map[string]string{
			"Code": "Success", "AccessKeyId": instanceKey, "SecretAccessKey": "emulated", "Token": "emulated", "Expiration": "2099-01-01T00:00:00Z"})
	case match[2] == "meta-data/public-ipv4", match[2] == "meta-data/local-ipv4":
		_, _ = w.Write([]byte(p.address))
	case match[2] == "meta-data/instance-id":
		_, _ = w.Write([]byte(match[1]))
	case match[2] == "meta-data/placement/region":
		_, _ = w.Write([]byte(Region))
	default:
		http.NotFound(w, r)
	}
}

// Keys that nodes sign with.
const (
	instanceKey = "AKIAINSTANCE00000000"
	functionKey = "AKIAFUNCTION00000000"
)

// Address is where an instance is; "" if there is no such instance.
func (n *Nodes) Address(instance string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := n.byID[instance]; p != nil {
		return p.address
	}
	return ""
}

// Kill ends an instance's processes at once, as a failure of its machine would.
func (n *Nodes) Kill(instance string) {
	n.mu.Lock()
	p := n.byID[instance]
	n.mu.Unlock()
	if p != nil {
		p.kill()
	}
}

// Processes are the directories of what has not ended, by its name.
func (n *Nodes) Processes() map[string]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	found := map[string]string{}
	for _, p := range n.running {
		select {
		case <-p.ended:
		default:
			found[p.name] = p.root
		}
	}
	return found
}

// Logs is everything that nodes and guests said, by name.
func (n *Nodes) Logs() map[string]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	found := map[string]string{}
	for _, p := range n.running {
		data, _ := os.ReadFile(p.log())
		found[p.name] += string(data)
	}
	return found
}
