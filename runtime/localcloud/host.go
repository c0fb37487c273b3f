// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// Paths inside a host.
const (
	hostSecretFile = "/etc/boxer/secret"
	hostStateDir   = "/var/lib/boxer"
	hostLayerZip   = "/run/boxer/layer.zip"
	hostScript     = "/run/boxer/user-data"
	hostPath       = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// drainTime is how long a guest may take to end after TERM.
const drainTime = 10 * time.Second

// Descriptors HostMain is started with, besides the standard ones (logs).
const (
	specFD   = 3 // the initSpec, JSON up to its end
	reportFD = 4 // initReports out, JSON lines; orders in
	listenFD = 5 // the published listeners, or what the sandbox enters its control groups by
)

// initSpec tells the init of a host what the host is.
type initSpec struct {
	Kind     string `json:"kind"` // as in config.Node
	Slot     string `json:"slot"`
	Address  string `json:"address"`
	StateDir string `json:"state_dir"` // of the store, to be hidden
	Staging  string `json:"staging"`   // an empty directory to assemble the root on
	Secret   string `json:"secret"`
	Source   string `json:"source,omitempty"`
	State    string `json:"state,omitempty"` // persistent state, seeds only
	LayerZip string `json:"layer_zip,omitempty"`
	LayerDir string `json:"layer_dir,omitempty"`
	Script   string `json:"script,omitempty"` // VMs: the bootstrap script
	User     string `json:"user"`             // of the guest, as it sees itself
	Group    string `json:"group"`
	UID      int    `json:"uid"`
	GID      int    `json:"gid"`
	MapUID   int    `json:"map_uid"` // of the guest, as the daemon sees it
	MapGID   int    `json:"map_gid"`
	Listen   int    `json:"listen"` // published listeners

	Files map[string]string `json:"files,omitempty"` // path -> content

	Plain   bool   `json:"plain,omitempty"`   // no namespaces: the host is the directory Staging
	Network string `json:"network,omitempty"` // then: the network's directory

	// Functions only.
	Event      *event `json:"event,omitempty"` // what to run
	TmpMB      int    `json:"tmp_mb,omitempty"`
	Root       string `json:"root,omitempty"`       // another system's; empty: this machine's
	Relaxed    bool   `json:"relaxed,omitempty"`    // not held to Lambda's rules
	Entrypoint string `json:"entrypoint,omitempty"` // of an image
	Reuse      bool   `json:"reuse,omitempty"`      // for other events after this one
	Groups     int    `json:"groups,omitempty"`     // control groups to enter
	Unlimited  string `json:"unlimited,omitempty"`  // why memory or CPU are not limited
}

func (s *initSpec) isVM() bool { return s.Kind != config.KindFunction }

// initReport is what the init of a host tells the daemon.
type initReport struct {
	Started bool   `json:"started,omitempty"` // what runs in the host was started
	Halted  bool   `json:"halted,omitempty"`  // it was ended by orderHalt
	Done    bool   `json:"done,omitempty"`    // functions: the event was answered
	Frozen  bool   `json:"frozen,omitempty"`  // functions that are used again: the same, Error says how; it waits for the next
	Error   string `json:"error,omitempty"`
}

// HostMain is `boxer local-host`: process 1 of a host. It sets the host up,
// starts what runs there, reaps, and ends when that ends; the kernel then kills
// whatever is left in its namespaces.
func HostMain(args []string) int {
	if len(args) > 0 && args[0] == confineWord {
		return confineMain(args[1:])
	}
	if len(args) == 2 && args[0] == plainWord {
		return plainMain()
	}
	if os.Getpid() != 1 || len(args) != 1 {
		fmt.Fprintln(os.Stderr, "boxer local-host is started by Boxer itself")
		return 125
	}
	h, err := newHostInit()
	if err == nil {
		err = h.run()
	}
	h.report(initReport{Done: err == nil, Error: errorText(err)})
	return 0
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

type hostInit struct {
	spec    initSpec
	root    *hostRoot
	plain   *plainRoot
	reports *json.Encoder
	orders  chan order
	signals chan os.Signal
	handed  []int // listeners, or entries of control groups, for the guest's side
	child   int
	ended   chan syscall.WaitStatus
	reaped  chan struct{} // closed when no process of the host's is left
}

func newHostInit() (*hostInit, error) {
	h := &hostInit{
		reports: json.NewEncoder(os.NewFile(reportFD, "report")),
		orders:  make(chan order),
		signals: make(chan os.Signal, 4),
		ended:   make(chan syscall.WaitStatus, 1),
	}
	unix.CloseOnExec(reportFD)
	signal.Notify(h.signals, unix.SIGTERM, unix.SIGINT)
	in := os.NewFile(specFD, "spec")
	defer in.Close()
	if err := json.NewDecoder(in).Decode(&h.spec); err != nil {
		return h, fmt.Errorf("read what to be: %w", err)
	}
	for i := range h.spec.Listen + h.spec.Groups {
		unix.CloseOnExec(listenFD + i) // the child has it under another number
		h.handed = append(h.handed, listenFD+i)
	}
	return h, nil
}

func (h *hostInit) report(r initReport) { _ = h.reports.Encode(r) }

func (h *hostInit) run() error {
	if err := h.assemble(); err != nil {
		return err
	}
	if h.spec.isVM() {
		return h.runVM()
	}
	return h.runFunction()
}

// assemble makes the host's file system, and its name.
func (h *hostInit) assemble() (err error) {
	if h.spec.Plain {
		h.plain = &plainRoot{}
		return h.plain.assemble(&h.spec)
	}
	if h.root, err = assembleRoot(&h.spec); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(h.spec.Slot)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	return nil
}

// change makes it that of another specification of the same host.
func (h *hostInit) change() error {
	if h.spec.Plain {
		return h.plain.assemble(&h.spec)
	}
	return h.root.change(&h.spec)
}

// runVM runs the bootstrap script, which is the service manager of a host
// without systemd, and again when the daemon has changed what the host runs.
func (h *hostInit) runVM() error {
	go h.takeOrders()
	for {
		if err := h.runScript(); err != nil {
			return err
		}
		h.report(initReport{Started: true})
		status, stopped := h.wait(nil)
		if status != nil {
			if stopped || status.ExitStatus() == 0 {
				return nil
			}
			return fmt.Errorf("bootstrap: %s", describe(*status))
		}
		if ok, err := h.halt(); !ok || err != nil {
			return err
		}
	}
}

func (h *hostInit) runScript() error {
	script := hostScript
	env := []string{"PATH=" + hostPath, "LANG=C.UTF-8", "USER=" + h.spec.User}
	if h.spec.Plain {
		script = h.plain.at(script)
		env = append(env, "HOME="+h.plain.at("/tmp"))
		env = append(env, h.spec.plainEnvironment()...)
	} else {
		env = append(env, "HOME=/tmp")
	}
	if err := os.Remove(script); err != nil && !errors.Is(err, os.ErrNotExist) { // or what the guest put there
		return err
	}
	if err := os.WriteFile(script, []byte(h.spec.Script), 0o755); err != nil {
		return err
	}
	if h.spec.Listen > 0 {
		env = append(env, "LISTEN_FDS="+strconv.Itoa(h.spec.Listen))
	}
	if err := h.start("/bin/sh", []string{"/bin/sh", script}, env, nil); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	return nil
}

// start starts the guest's side in a user namespace in which it is nobody
// special: mapped root would be root enough for programs to try and change user.
// What was handed in is its own from descriptor 3 up.
func (h *hostInit) start(path string, argv, env []string, caps []uintptr) error {
	files := []uintptr{0, 1, 2}
	for _, fd := range h.handed {
		files = append(files, uintptr(fd))
	}
	start := h.startConfinedUser
	if h.spec.Plain {
		start = h.startPlain
	}
	pid, err := start(path, argv, env, files, caps)
	if err != nil {
		return fmt.Errorf("start %s: %w", path, err)
	}
	for _, fd := range h.handed {
		unix.Close(fd) // a listener lives exactly as long as the guest's side
	}
	h.child, h.reaped = pid, make(chan struct{})
	go h.reap(pid, h.reaped)
	return nil
}

func (h *hostInit) startConfinedUser(path string, argv, env []string, files, caps []uintptr) (int, error) {
	dir := "/"
	if !h.spec.isVM() {
		dir = "/var/task" // as on Lambda
	}
	pid, _, err := syscall.StartProcess(path, argv, &syscall.ProcAttr{
		Dir: dir, Env: env, Files: files,
		Sys: &syscall.SysProcAttr{
			Setsid:      true,
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: h.spec.UID, HostID: h.spec.MapUID, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: h.spec.GID, HostID: h.spec.MapGID, Size: 1}},
			Credential:  &syscall.Credential{Uid: uint32(h.spec.UID), Gid: uint32(h.spec.GID), NoSetGroups: true},
			AmbientCaps: caps,
		},
	})
	return pid, err
}

// reap collects every process that ends, as init must, until none is left.
func (h *hostInit) reap(child int, over chan<- struct{}) {
	defer close(over)
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if pid == child {
			h.ended <- status
		}
		if err != nil { // no children: ours is among the reaped
			return
		}
	}
}

// wait waits for the child, passing TERM on; stopped says that it was asked to
// end, by a signal or because over was closed. After drainTime everything in
// the host is killed. It returns no status when it was ended by an order.
func (h *hostInit) wait(over <-chan struct{}) (status *syscall.WaitStatus, stopped bool) {
	var deadline <-chan time.Time
	halted := false
	stop := func(grace time.Duration) {
		_ = syscall.Kill(h.child, unix.SIGTERM)
		if deadline == nil {
			deadline = time.After(grace)
		}
	}
	for {
		select {
		case status := <-h.ended:
			if halted && !stopped {
				return nil, false
			}
			return &status, stopped
		case <-h.signals:
			stopped = true
			stop(drainTime)
		case <-over:
			over, stopped = nil, true
			stop(500 * time.Millisecond)
		case <-h.orders: // to halt: there is no other while the child runs
			halted = true
			stop(drainTime)
		case <-deadline:
			h.killAll()
		}
	}
}

func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "killed by signal " + unix.SignalName(status.Signal())
	}
	return "exit status " + strconv.Itoa(status.ExitStatus())
}

// runFunction serves the Runtime API for one event and runs the bootstrap of
// the layer, as Lambda does.
func (h *hostInit) runFunction() error {
	bootstrap, err := h.findBootstrap()
	if err != nil {
		return err
	}
	api, err := serveRuntimeAPI(h.spec.Event)
	if err != nil {
		return err
	}
	defer api.close()
	switch {
	case h.spec.Plain:
		err = h.startFunctionPlain(bootstrap)
	case h.spec.Relaxed:
		err = h.start(bootstrap, []string{bootstrap}, h.spec.Event.environment(), nil)
	default:
		err = h.startConfined(bootstrap)
	}
	if err != nil {
		return fmt.Errorf("Runtime.InvalidEntrypoint: %w", err)
	}
	h.report(initReport{Started: true})
	if h.spec.Reuse {
		return h.runEvents(api)
	}
	expired := time.AfterFunc(time.Until(h.spec.Event.Deadline), func() { api.finish(h.spec.Event.timedOut()) })
	defer expired.Stop()
	status, stopped := h.wait(api.answeredEvent())
	if message, answered := api.outcome(); answered {
		if message != "" {
			return errors.New(message)
		}
		return nil
	}
	if stopped {
		return errors.New("stopped")
	}
	return fmt.Errorf("Runtime.ExitError: the runtime ended before it answered: %s", describe(*status))
}

// startConfined starts the runtime held to Lambda's rules, by way of confineMain.
func (h *hostInit) startConfined(bootstrap string) error {
	if h.spec.Unlimited != "" {
		notLimited(errors.New(h.spec.Unlimited))
	}
	// Here, because Go takes its own change of this limit back when it executes.
	if err := syscall.Setrlimit(unix.RLIMIT_NOFILE, &syscall.Rlimit{Cur: maxFiles, Max: maxFiles}); err != nil {
		return fmt.Errorf("limit descriptors: %w", err)
	}
	return h.start("/proc/self/exe", confined(bootstrap, h.spec.Groups), h.spec.Event.environment(), confineCaps)
}

// findBootstrap looks where Lambda looks.
func (h *hostInit) findBootstrap() (string, error) {
	if h.spec.Entrypoint != "" {
		return h.spec.Entrypoint, nil
	}
	for _, dir := range []string{"/var/runtime", "/var/task", "/opt"} {
		path := filepath.Join(dir, "bootstrap")
		if h.spec.Plain {
			path = h.plain.at(path)
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", errors.New("Runtime.InvalidEntrypoint: no bootstrap in /var/runtime, /var/task or /opt")
}
