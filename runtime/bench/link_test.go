// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// The delayed link: two namespaces joined by two TUN devices, between which
// testdata/link.c forwards packets after a while. Supervisors are started by
// hand, the seed and the server on the far side. With NATs the near node is a
// function, and on the far side is another one.
const (
	linkDelay       = 100 * time.Microsecond // each way
	nearHost        = "10.90.0.1"
	farHost         = "10.90.0.2"
	seedHost        = "10.90.0.3"
	seedPort        = 7718 // another than the overlay port of the far node: the trace knows ports only
	boxPort         = 7720 // of the functions, for the same reason
	linkBlocks      = 40
	linkPunchBlocks = 24
	linkColdBlocks  = 12
	pingCount       = 1500
	traceFile       = "trace.txt"

	linkVariable = "BOXER_BENCH_LINK"
)

// linkTask is what the process that makes the link is told.
type linkTask struct {
	Bin      string `json:"bin"`
	Dir      string `json:"dir"` // has the probe; is written to
	CPU      string `json:"cpu"` // of clients and servers
	OtherCPU string `json:"other_cpu"`
	Plan     plan   `json:"plan"`
	NATs     bool   `json:"nats"`
}

func TestMain(m *testing.M) {
	doc := os.Getenv(linkVariable)
	if doc == "" {
		os.Exit(m.Run())
	}
	if err := linkMain(doc); err != nil {
		fmt.Fprintf(os.Stderr, "the delayed link: %v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// link measures over the delayed link. Everything runs below one process in
// namespaces of its own, whose end is the end of all.
func (b *boxer) link(ctx context.Context, r results, t linkTask) ([]packet, error) {
	doc, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	runtime.LockOSThread() // the child is told when this thread ends
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append([]string{linkVariable + "=" + string(doc)}, b.env...)
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL,
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(tail(errs.String(), 3000)))
	}
	if err := r.add(out.Bytes()); err != nil {
		return nil, err
	}
	return readTrace(filepath.Join(t.Dir, traceFile))
}

// linkWorld is what the process has that makes the link. It runs on one thread,
// which is in the near namespace but while it does something in the far one.
type linkWorld struct {
	linkTask
	near, far netns.NsHandle
}

func linkMain(doc string) error {
	runtime.LockOSThread()
	w := &linkWorld{}
	if err := json.Unmarshal([]byte(doc), &w.linkTask); err != nil {
		return err
	}
	err := errors.Join(unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("proc", "/proc", "proc", 0, ""))
	if err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if w.near, err = netns.Get(); err != nil {
		return err
	}
	if w.far, err = netns.New(); err != nil {
		return fmt.Errorf("make the far namespace: %w", err)
	}
	farTUN, err := openTUN("far0", farHost, seedHost, natHost)
	if err != nil {
		return err
	}
	if err := netns.Set(w.near); err != nil {
		return err
	}
	nearTUN, err := openTUN("near0", nearHost)
	if err != nil {
		return err
	}
	link, err := startDelayer(w.Dir, w.OtherCPU, nearTUN, farTUN)
	if err != nil {
		return err
	}
	if w.NATs {
		err = w.measurePunch(link)
	} else {
		err = w.measure(link)
	}
	return errors.Join(err, link.end())
}

// openTUN makes a TUN device with these addresses in the namespace of the thread.
func openTUN(name string, addresses ...string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w: a TUN device is what delays packets; run as root where there is one", err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return nil, fmt.Errorf("make TUN device %s: %w", name, err)
	}
	if err := errors.Join(up("lo"), up(name, addresses...)); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// up gives a device addresses and switches it on.
func up(name string, addresses ...string) error {
	at, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(at)
	}
	for _, address := range addresses {
		if err == nil {
			err = netlink.AddrAdd(at, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(address), Mask: net.CIDRMask(24, 32)}})
		}
	}
	if err != nil {
		return fmt.Errorf("set up %s: %w", name, err)
	}
	return nil
}

// delayer is the running link.
type delayer struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Reader
}

// startDelayer joins two TUN devices; the trace goes to dir, which has the program.
func startDelayer(dir, cpu string, near, far *os.File) (*delayer, error) {
	d := &delayer{cmd: exec.Command(filepath.Join(dir, "link"), cpu, filepath.Join(dir, traceFile))}
	d.cmd.ExtraFiles, d.cmd.Stderr = []*os.File{near, far}, os.Stderr
	var err error
	if d.in, err = d.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	d.lines = bufio.NewReader(out)
	return d, d.cmd.Start()
}

// delay sets the delay of one way.
func (d *delayer) delay(of time.Duration) error {
	fmt.Fprintf(d.in, "delay %d\n", of.Nanoseconds())
	if _, err := d.lines.ReadString('\n'); err != nil {
		return fmt.Errorf("the link: %w", err)
	}
	return nil
}

// end lets the link write what it saw.
func (d *delayer) end() error {
	d.in.Close()
	if err := d.cmd.Wait(); err != nil {
		return fmt.Errorf("the link: %w", err)
	}
	return nil
}

// serve starts the seed and the server.
func (w *linkWorld) serve() error {
	secret := filepath.Join(w.Dir, "secret")
	if err := os.WriteFile(secret, []byte("a secret of the benchmark alone"), 0o600); err != nil {
		return err
	}
	server := fmt.Sprintf("set -eu\n%[1]s/probe-static bare %[1]s/probe serve %[3]d &\nexec %[1]s/probe serve %[2]d\n", w.Dir, boxerPort, boxerPort+native)
	return errors.Join(
		w.start(w.far, config.Node{Kind: config.KindSeed, Slot: "seed-0", UnderlayAddress: seedHost, Port: seedPort}, ""),
		w.start(w.far, config.Node{Kind: config.KindVM, Slot: "far", UnderlayAddress: farHost}, server))
}

// measure starts the three nodes and lets the near one measure.
func (w *linkWorld) measure(link *delayer) error {
	sides := threeSides(farHost, "far", w.CPU)
	script := w.Plan.script("link")
	script.await(sides[0], boxerPort)
	script.blocks(linkBlocks, "link.connect", sides, func(sd side) string {
		return "PROBE_SAMPLES=1 " + sd.probe("connect", sd.host, boxerPort+sd.native, connectCount, connectMS)
	})
	if err := w.serve(); err != nil {
		return err
	}
	for _, ping := range []struct {
		name  string
		delay time.Duration
	}{{"none", 0}, {"delayed", linkDelay}} {
		if err := link.delay(ping.delay); err != nil {
			return err
		}
		if err := w.ping(ping.name); err != nil {
			return err
		}
	}
	err := w.start(w.near, config.Node{Kind: config.KindVM, Slot: "near", UnderlayAddress: nearHost, WaitFor: map[string]int{"far": 1}},
		script.text(w.Dir))
	if err != nil {
		return err
	}
	return w.await("near")
}

// ping measures one byte there and back, natively.
func (w *linkWorld) ping(name string) error {
	var out []byte
	for _, args := range [][]any{{"await", farHost, boxerPort + native}, {"rtt", farHost, boxerPort + native, 1, pingCount}} {
		cmd := exec.Command("sh", "-c", "T="+w.Dir+"; exec "+side{bare: true}.probe(args...))
		cmd.Env = append(os.Environ(), "PROBE_LABEL=link.ping/"+name+"/0", "PROBE_CPU="+w.CPU)
		cmd.Stderr = os.Stderr
		var err error
		if out, err = cmd.Output(); err != nil {
			return fmt.Errorf("ping-pong over the link: %w", err)
		}
	}
	_, err := os.Stdout.Write(out)
	return err
}

// start starts a supervisor in a namespace, each on a site of its own.
func (w *linkWorld) start(ns netns.NsHandle, n config.Node, script string) error {
	n.Network, n.SecretRef, n.Site = "link", "file:"+filepath.Join(w.Dir, "secret"), n.Slot
	n.StateDir = filepath.Join(w.Dir, n.Slot+".state")
	if n.Kind != config.KindSeed {
		n.SeedEndpoints = []string{fmt.Sprintf("%s:%d", seedHost, seedPort)}
		n.Argv = []string{"sh", "-c", "sh " + filepath.Join(w.Dir, n.Slot+".sh") + "; echo end $?"}
		n.Env = map[string]string{"PROBE_CPU": w.CPU, "PATH": os.Getenv("PATH")}
	}
	n, err := config.New(n)
	if err != nil {
		return err
	}
	doc, err := json.Marshal(n)
	if err != nil {
		return err
	}
	file := func(kind string) string { return filepath.Join(w.Dir, n.Slot+kind) }
	err = errors.Join(os.WriteFile(file(".sh"), []byte(script), 0o644), os.WriteFile(file(".json"), doc, 0o644))
	if err != nil {
		return err
	}
	out, err := os.Create(file(".out"))
	if err != nil {
		return err
	}
	defer out.Close()
	log, err := os.Create(file(".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(w.Bin, "boxer"), "node", "-config", file(".json"))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + w.Dir}
	cmd.Stdout, cmd.Stderr = out, log
	if err := netns.Set(ns); err != nil {
		return err
	}
	err = cmd.Start()
	return errors.Join(err, netns.Set(w.near))
}

// await waits for the end of a node's script and passes its output on.
func (w *linkWorld) await(slot string) error {
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		out, err := os.ReadFile(filepath.Join(w.Dir, slot+".out"))
		if err != nil {
			return err
		}
		before, status, ended := strings.Cut("\n"+string(out), "\nend ")
		if !ended || !strings.HasSuffix(status, "\n") {
			continue
		}
		if strings.TrimSpace(status) == "0" {
			_, err := fmt.Println(before)
			return err
		}
		break
	}
	said := ""
	for _, name := range []string{"near.out", "near.log", "far.out", "far.log", "fn.out", "fn.log", "seed-0.log"} {
		if text, err := os.ReadFile(filepath.Join(w.Dir, name)); err == nil {
			said += name + ": " + tail(string(text), 800) + "\n"
		}
	}
	return fmt.Errorf("node %s did not measure to the end:\n%s", slot, said)
}
