// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// tailBytes bounds what is read from the end of a log.
const tailBytes = 64 << 10

// LogPath is the file with the output of a slot's guest.
func (n NetworkInfo) LogPath(slot string) string { return guestLog(netDir(n.Directory), slot) }

// Tail returns the last lines of the output of a slot's guest.
func (n NetworkInfo) Tail(slot string, lines int) ([]string, error) {
	if err := config.CheckName(slot); err != nil {
		return nil, err
	}
	found, err := tail(n.LogPath(slot), lines)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("log of %q: %w on network %q", slot, ErrNotFound, n.Name)
	}
	return found, err
}

// tail returns the last n lines of a file, fewer if they are very long.
func tail(path string, n int) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	start := max(info.Size()-tailBytes, 0)
	data, err := io.ReadAll(io.NewSectionReader(f, start, tailBytes))
	if err != nil {
		return nil, err
	}
	if start > 0 { // the first line may be cut
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			data = data[i+1:]
		}
	}
	text := strings.TrimRight(string(data), "\n")
	if text == "" || n <= 0 {
		return []string{}, nil
	}
	lines := strings.Split(text, "\n")
	return lines[max(len(lines)-n, 0):], nil
}
