// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"sync"
	"time"
)

//go:embed page
var files embed.FS

// page is made when it is first shown: every supervisor has this package in it.
var page = sync.OnceValue(func() *template.Template { return template.Must(template.ParseFS(files, "page/*.html")) })

func (d *Dashboard) handler(addr net.Addr) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", d.servePage)
	mux.HandleFunc("/live", d.serveStream)
	for _, name := range []string{"style.css", "live.js", "icon.svg"} {
		mux.HandleFunc("/"+name, func(w http.ResponseWriter, r *http.Request) {
			http.ServeFileFS(w, r, files, "page/"+name)
		})
	}
	return guard(addr, d.token, mux)
}

// servePage is the whole page, complete without JavaScript.
func (d *Dashboard) servePage(w http.ResponseWriter, r *http.Request) {
	now, _ := d.current()
	html, err := d.render("page.html", now, r.URL.Query().Get("q"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(html)
}

// serveStream sends the page's live part, whenever it differs from what was sent.
func (d *Dashboard) serveStream(w http.ResponseWriter, r *http.Request) {
	select {
	case d.streams <- struct{}{}:
		defer func() { <-d.streams }()
	default:
		http.Error(w, fmt.Sprintf("The page is open %d times already: close one.", maxStreams), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	out := stream{w: w, control: http.NewResponseController(w)}
	// The deadline of reading the request would end the stream.
	if out.control.SetReadDeadline(time.Time{}) != nil {
		return
	}
	ping := time.NewTicker(pingTime)
	defer ping.Stop()
	var sent []byte
	for {
		now, changed := d.current()
		html, err := d.render("live", now, r.URL.Query().Get("q"))
		if err != nil {
			return
		}
		if !bytes.Equal(html, sent) {
			if out.event(html) != nil {
				return
			}
			sent = html
		}
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		case <-ping.C: // finds out that nobody reads any more
			if out.write([]byte(":\n\n")) != nil {
				return
			}
		}
	}
}

func (d *Dashboard) render(name string, now snapshot, query string) ([]byte, error) {
	var b bytes.Buffer
	err := page().ExecuteTemplate(&b, name, d.view(now, query))
	return b.Bytes(), err
}

// stream writes server-sent events, each with a deadline.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func (s stream) event(data []byte) error {
	var b bytes.Buffer
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		fmt.Fprintf(&b, "data: %s\n", line)
	}
	b.WriteByte('\n')
	return s.write(b.Bytes())
}

func (s stream) write(data []byte) error {
	if err := s.control.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return err
	}
	if _, err := s.w.Write(data); err != nil {
		return err
	}
	return s.control.Flush()
}
