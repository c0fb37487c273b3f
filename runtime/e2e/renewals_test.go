// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestRenewals: functions whose platform ends them after 30 s serve on and on,
// behind an nginx that resolved their names once. BOXER_RENEWALS says for how
// long, such as 5m; without it the test is skipped (make renewal).
func TestRenewals(t *testing.T) {
	total, err := time.ParseDuration(os.Getenv("BOXER_RENEWALS"))
	if err != nil {
		t.Skip("BOXER_RENEWALS is not set")
	}
	const rate, clients = 200, 20
	w := newWorld(t)
	task := w.task(t)
	conf, err := os.ReadFile("testdata/renewed.conf")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(task+"/web.conf", []byte(strings.ReplaceAll(string(conf), "@LAUNCH@", "served")), 0o644); err != nil {
		t.Fatal(err)
	}
	w.network(t, "renewals")
	w.must(t, "run", "--kind", "function", "--name", "web", "--count", "2", "--timeout", "30", "--source-dir", task, "--detach",
		"--", "nginx", "-e", "stderr", "-c", "/var/task/web.conf")
	w.must(t, "scale", "web", "2") // kept from now on
	port := freePort(t)
	w.vm(t, "front", "--source-dir", task, "--publish", fmt.Sprintf("%d:8080", port), "--", "nginx", "-e", "stderr", "-c", "/var/task/front.conf")

	var mu sync.Mutex
	var all sync.WaitGroup
	made, slowest, failures := 0, time.Duration(0), []string{}
	end := time.Now().Add(total)
	for range clients {
		all.Go(func() {
			client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for tick := time.NewTicker(time.Second * clients / rate); time.Now().Before(end); <-tick.C {
				began, said := time.Now(), ""
				resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
				if err == nil {
					body, readErr := io.ReadAll(resp.Body)
					resp.Body.Close()
					said, err = fmt.Sprint(resp.StatusCode, " ", string(body)), readErr
				}
				took := time.Since(began)
				mu.Lock()
				made++
				slowest = max(slowest, took)
				if err != nil || said != "200 served\n" {
					failures = append(failures, fmt.Sprintf("%s after %v: %s %v", began.Format(time.TimeOnly), took, clip(said), err))
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	events := w.must(t, "events")
	renewed := strings.Count(events, "to follow node-")
	t.Logf("%d requests in %v, %d failed, the slowest took %v; %d renewals", made, total, len(failures), slowest, renewed)
	if len(failures) > 0 || made < int(total.Seconds())*rate*9/10 || renewed < 2*(int(total.Seconds())/30) {
		t.Errorf("%d of %d requests failed: %s\n%s", len(failures), made, strings.Join(failures[:min(len(failures), 20)], "\n"), events)
	}
}
