// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// serveMetrics answers GET /metrics in the Prometheus text format, where the
// configuration says, until ctx ends.
func (n *node) serveMetrics(ctx context.Context) error {
	ln, err := n.listenMetrics(ctx)
	if ln == nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		n.writeMetrics(w)
	})
	server := http.Server{
		Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10,
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}

// listenMetrics opens what was asked for, which must be possible, or the socket
// in the run directory; nil: nobody asked.
func (n *node) listenMetrics(ctx context.Context) (net.Listener, error) {
	at, asked := n.cfg.MetricsListener()
	path, isPath := strings.CutPrefix(at, "unix:")
	switch {
	case at == config.MetricsOff:
		return nil, nil
	case !asked:
		path, isPath = filepath.Join(n.dir, "metrics.sock"), true
	}
	var ln net.Listener
	var err error
	if isPath {
		_ = os.Remove(path) // of a supervisor that was killed
		if ln, err = listenUnix(ctx, path); err == nil {
			err = os.Chmod(path, 0o600)
		}
	} else {
		ln, err = (&net.ListenConfig{}).Listen(ctx, "tcp", at)
	}
	if err != nil && !asked {
		n.log.Warn().Err(err).Msg("no metrics")
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listen for metrics at %s: %w: choose another place, or \"off\"", at, err)
	}
	return ln, nil
}

// writeMetrics writes what this supervisor has counted. Set-up times are summed
// up over peers: the number of series stays small; `boxer paths` has them by pair.
func (n *node) writeMetrics(w io.Writer) {
	self := n.session.Self()
	slots := map[uint32]string{}
	for _, m := range n.session.Members() {
		slots[m.ID] = m.Slot
	}
	metrics.WriteGaugeUint64(w, series("boxer_node_info", "network", n.cfg.Network, "slot", n.cfg.Slot, "kind", n.cfg.Kind,
		"id", strconv.FormatUint(uint64(self.ID), 10), "version", n.o.Version), 1)
	metrics.WriteGaugeUint64(w, "boxer_members", uint64(len(slots)))
	metrics.WriteGaugeUint64(w, "boxer_seed_connected", map[bool]uint64{true: 1}[n.session.Connected()])
	for _, p := range n.transport.Paths() {
		to := slots[p.To]
		if to == "" {
			to = fmt.Sprintf("node-%d", p.To)
		}
		metrics.WriteCounterUint64(w, series("boxer_connections_total", "to", to, "transport", p.Transport), p.Count)
		if p.Failed > 0 {
			metrics.WriteCounterUint64(w, series("boxer_connect_failures_total", "to", to, "transport", p.Transport), p.Failed)
		}
	}
	for _, s := range n.transport.Setups() {
		const name = "boxer_connect_setup_seconds"
		for _, b := range s.Within {
			metrics.WriteCounterUint64(w, series(name+"_bucket", "transport", s.Transport, "le", strconv.FormatFloat(b.Most.Seconds(), 'g', -1, 64)), b.Count)
		}
		metrics.WriteCounterUint64(w, series(name+"_bucket", "transport", s.Transport, "le", "+Inf"), s.Count)
		metrics.WriteCounterFloat64(w, series(name+"_sum", "transport", s.Transport), s.Sum.Seconds())
		metrics.WriteCounterUint64(w, series(name+"_count", "transport", s.Transport), s.Count)
	}
	usage := n.transport.Usage()
	metrics.WriteGaugeUint64(w, "boxer_held_connects", uint64(usage.Held))
	metrics.WriteGaugeUint64(w, "boxer_relay_pairs", uint64(usage.Pairs))
	metrics.WriteGaugeUint64(w, "boxer_relay_halves", uint64(usage.Halves))
	metrics.WriteCounterUint64(w, "boxer_relay_refused_total", usage.RelayRefused)
	metrics.WriteCounterUint64(w, "boxer_overlay_port_refused_total", usage.Strangers)
	if l := n.status.get().Load; l != nil {
		writeLoad(w, *l, "slot", n.cfg.Slot)
	}
	n.writeControllerMetrics(w)
	metrics.WriteProcessMetrics(w)
}

// series is a metric's name with its labels.
func series(name string, labels ...string) string {
	var b strings.Builder
	b.WriteString(name)
	for i := 0; i < len(labels); i += 2 {
		fmt.Fprintf(&b, "%c%s=%q", map[bool]byte{true: '{', false: ','}[i == 0], labels[i], labels[i+1])
	}
	b.WriteByte('}')
	return b.String()
}
