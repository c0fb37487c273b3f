// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// Main is `boxer local-cloud`, the daemon of one network: `outer DIRECTORY` in
// the namespaces of the machine, which starts `inner` in its own.
func Main(args []string) int {
	switch {
	case len(args) == 2 && args[0] == "outer":
		return report(outerMain(netDir(args[1])))
	case len(args) == 2 && args[0] == "inner":
		return report(innerMain(netDir(args[1])))
	case len(args) == 2 && args[0] == "probe":
		if err := probeMain(netDir(args[1])); err != nil {
			fmt.Println(err)
			return 1
		}
		return 0
	}
	fmt.Fprintln(os.Stderr, "boxer local-cloud is started by Boxer itself")
	return 125
}

func report(err error) int {
	if err != nil {
		logger := daemonLogger()
		logger.Error().Err(err).Msg("local cloud ended")
		return 125
	}
	return 0
}

func daemonLogger() zerolog.Logger {
	return zerolog.New(os.Stderr).With().Timestamp().Int("pid", os.Getpid()).Logger()
}

// outer is the half of the daemon that sees the machine's network: it opens the
// listeners that are published there.
type outer struct {
	dir     netDir
	log     zerolog.Logger
	starter net.Conn // until commit
	control *controlConn
	inner   *exec.Cmd
	rooted  bool
}

func outerMain(dir netDir) error {
	closeInherited()
	unix.Umask(0o022) // hosts are made for guests of another uid, and guests inherit it
	// The thread that starts inner must live as long as this process: inner's
	// parent-death signal goes by thread.
	runtime.LockOSThread()
	o := &outer{dir: dir, log: daemonLogger().With().Str("part", "outer").Logger(), rooted: isRealRoot()}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	signal.Ignore(unix.SIGHUP)
	inherited := os.NewFile(3, "starter")
	starter, err := net.FileConn(inherited)
	inherited.Close()
	if err != nil {
		return fmt.Errorf("local cloud: started by hand: %w", err)
	}
	o.starter = starter
	var start goMessage
	decoder := json.NewDecoder(starter)
	if err := decoder.Decode(&start); err != nil {
		return fmt.Errorf("local cloud: the starter ended before the start: %w", err)
	}
	if err := o.startInner(start.Info); err != nil {
		_ = json.NewEncoder(starter).Encode(readyMessage{Error: err.Error()})
		return err
	}
	committed := make(chan bool, 1)
	go func() {
		var c commitMessage
		err := decoder.Decode(&c)
		starter.Close()
		committed <- err == nil && c.Commit
	}()
	go o.serveInner()
	defer dir.removeCgroups() // if inner was killed
	if start.Info.plain() {
		// Where inner was killed with some of its inits, all below them comes here.
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
		defer clearAllChildren()
	}
	return o.run(signals, committed)
}

// closeInherited closes what the starter had open for others: a lock, a pipe, a
// file would stay open as long as the network, and in the hands of its guests.
// What this process opened itself is close-on-exec.
func closeInherited() {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 3 { // standard descriptors and the starter
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
}

// run waits for the end of inner, and asks for it when told to.
func (o *outer) run(signals <-chan os.Signal, committed <-chan bool) error {
	ended := make(chan error, 1)
	go func() { ended <- o.inner.Wait() }()
	var deadline <-chan time.Time
	stop := func(why string) {
		o.log.Info().Str("why", why).Msg("stopping")
		if deadline == nil {
			deadline = time.After(daemonStopTime - 3*time.Second)
		}
		_ = o.control.send(controlPacket{Op: opStop}, nil)
	}
	home, err := os.Open(string(o.dir))
	if err != nil {
		return fmt.Errorf("local cloud: %w", err)
	}
	defer home.Close()
	look := time.NewTicker(homeCheck)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			if deadline == nil && removed(home) {
				stop("its directory was removed")
			}
		case err := <-ended:
			if err != nil && deadline == nil {
				return fmt.Errorf("local cloud: inner ended: %w", err)
			}
			return nil
		case s := <-signals:
			stop(s.String())
		case ok := <-committed:
			if committed = nil; !ok {
				stop("the process that started this network ended before it was complete")
			}
		case <-deadline:
			_ = o.inner.Process.Kill()
		}
	}
}

// homeCheck: how often a daemon looks whether its network was removed by hand;
// nobody could find it to end it.
const homeCheck = 2 * time.Second

// removed reports whether an open directory is in no other any more.
func removed(dir *os.File) bool {
	var info unix.Stat_t
	return unix.Fstat(int(dir.Fd()), &info) == nil && info.Nlink == 0
}

// startInner starts the other half in namespaces of its own and tells it what
// to run.
func (o *outer) startInner(info NetworkInfo) error {
	ours, theirs, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		return err
	}
	defer theirs.Close()
	if o.control, err = newControlConn(ours); err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	o.inner = exec.Command(exe, "local-cloud", "inner", string(o.dir))
	o.inner.Env, o.inner.Dir = os.Environ(), "/"
	o.inner.Stdout, o.inner.Stderr = os.Stdout, os.Stderr
	o.inner.ExtraFiles = []*os.File{theirs}
	o.inner.SysProcAttr = innerAttributes(o.rooted)
	if info.plain() {
		o.inner.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL}
	}
	if err := o.inner.Start(); err != nil {
		return explainNamespaces(o.rooted, err)
	}
	self, err := identify(os.Getpid())
	if err == nil {
		var inner processID
		if inner, err = identify(o.inner.Process.Pid); err == nil {
			err = writeJSON(o.dir.join("daemon.json"), daemonFile{Outer: self, Inner: inner})
		}
	}
	if err == nil {
		err = o.control.send(controlPacket{Op: opStart, Info: &info, Rooted: o.rooted}, nil)
	}
	if err != nil {
		_ = o.inner.Process.Kill()
		_ = o.inner.Wait()
		return stateError(o.dir.stateDir(), err)
	}
	return nil
}

func innerAttributes(rooted bool) *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Setsid:     true,
		Pdeathsig:  unix.SIGKILL,
	}
	if !rooted {
		attributes.Cloneflags |= unix.CLONE_NEWUSER
		attributes.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		attributes.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return attributes
}

// serveInner answers what inner asks for, until one of the two ends.
func (o *outer) serveInner() {
	for {
		p, file, err := o.control.receive()
		if err != nil {
			return
		}
		if file != nil {
			file.Close()
		}
		switch p.Op {
		case opReady:
			if p.Setup {
				p.Error = explainNamespaces(o.rooted, errors.New(p.Error)).Error()
			}
			_ = json.NewEncoder(o.starter).Encode(readyMessage{Error: p.Error})
		case opListen:
			o.listen(p.Address)
		}
	}
}

func (o *outer) listen(address string) {
	answer := controlPacket{Op: opListen, Address: address}
	file, err := openListener(address)
	if err != nil {
		answer.Error, answer.InUse = err.Error(), errors.Is(err, unix.EADDRINUSE)
	} else {
		defer file.Close()
	}
	if err := o.control.send(answer, file); err != nil {
		o.log.Error().Err(err).Msg("answer a request for a listener")
	}
}

func openListener(address string) (*os.File, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.(*net.TCPListener).File()
}

// hiddenBase is where sockets below dir are reached by a short path: a unix
// socket's may have 107 bytes, a state directory's own may be longer.
func hiddenBase(dir string) (string, *os.File, error) {
	f, err := os.OpenFile(filepath.Clean(dir), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d", f.Fd()), f, nil
}
