// SPDX-License-Identifier: Apache-2.0

// Command fakeboxer stands in for the supervisor in the tests of the local
// cloud: it does what the platform can see of one, without an overlay.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

func main() {
	switch args := os.Args[2:]; os.Args[1] {
	case "node":
		os.Exit(fakeNode(args[1]))
	case "function":
		os.Exit(fakeFunction())
	case "serve":
		os.Exit(fakeServe(args))
	case "dial":
		os.Exit(fakeDial(args[0]))
	}
	os.Exit(2)
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "fake boxer:", err)
	return 1
}

// fakeNode runs a seed, or the command of the document.
func fakeNode(path string) int {
	n, err := config.Load(path)
	if err != nil {
		return fail(err)
	}
	if n.Kind == config.KindSeed {
		return fail(fakeSeed(n))
	}
	cmd := exec.Command(n.Argv[0], n.Argv[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	fds, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	for i := range fds {
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(3+i), "listener"))
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM)
	if err := cmd.Start(); err != nil {
		return fail(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-signals:
		_ = cmd.Process.Signal(unix.SIGTERM)
		<-ended
		fmt.Fprintln(os.Stderr, "fake boxer: ended by TERM")
		return 0
	case err := <-ended:
		return fail(err)
	}
}

func fakeSeed(n config.Node) error {
	secret, err := n.Secret()
	if err != nil {
		return err
	}
	if count, err := os.ReadFile(filepath.Join(n.StateDir, "starts")); err == nil || os.IsNotExist(err) {
		if err := os.WriteFile(filepath.Join(n.StateDir, "starts"), append(count, '.'), 0o600); err != nil {
			return err
		}
	}
	seed, err := cluster.NewSeed(cluster.SeedOptions{
		Network: n.Network, Secret: secret, CIDR: netip.MustParsePrefix(n.CIDR),
		StatePath: filepath.Join(n.StateDir, "seed.json"), Logger: zerolog.Nop(),
	})
	if err != nil {
		return err
	}
	published, err := net.FileListener(os.NewFile(3, "published"))
	if err != nil {
		return err
	}
	for {
		conn, err := published.Accept()
		if err != nil {
			return err
		}
		go seed.ServeConn(conn)
	}
}

// fakeFunction is a runtime that runs the event's command.
func fakeFunction() int {
	base := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime"
	resp, err := http.Get(base + "/invocation/next")
	if err != nil {
		return fail(err)
	}
	doc, err := io.ReadAll(resp.Body)
	if err != nil {
		return fail(err)
	}
	invocation := base + "/invocation/" + resp.Header.Get("Lambda-Runtime-Aws-Request-Id")
	n, err := config.Parse(doc)
	if err == nil {
		cmd := exec.Command(n.Argv[0], n.Argv[1:]...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
		err = cmd.Run()
	}
	if err != nil {
		body := fmt.Sprintf(`{"errorType":"Guest.Failed","errorMessage":%q}`, err)
		_, err = http.Post(invocation+"/error", "application/json", strings.NewReader(body))
	} else {
		_, err = http.Post(invocation+"/response", "application/json", strings.NewReader("{}"))
	}
	if err != nil {
		return fail(err)
	}
	_, err = http.Get(base + "/invocation/next") // until the sandbox ends
	return fail(err)
}

// fakeServe tells everyone who connects to one of the ports (or the inherited
// listener, "fd") who they are.
func fakeServe(ports []string) int {
	var wg sync.WaitGroup
	for _, port := range ports {
		l, err := net.Listen("tcp4", ":"+port)
		if port == "fd" {
			l, err = net.FileListener(os.NewFile(3, "published"))
		}
		if err != nil {
			return fail(err)
		}
		wg.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				host, _ := os.Hostname()
				fmt.Fprintf(conn, "%s sees %s\n", host, conn.RemoteAddr().(*net.TCPAddr).IP)
				conn.Close()
			}
		})
	}
	fmt.Println("serving", ports)
	wg.Wait()
	return 0
}

func fakeDial(address string) int {
	conn, err := net.DialTimeout("tcp4", address, time.Second)
	if err != nil {
		fmt.Println("dial:", err)
		return 0
	}
	_ = conn.SetReadDeadline(time.Now().Add(time.Second))
	text, err := io.ReadAll(conn)
	fmt.Printf("%s", text)
	if err != nil {
		fmt.Println("read:", err)
	}
	return 0
}
