// SPDX-License-Identifier: Apache-2.0

package lambda

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"time"

	"github.com/boxer-overlay/boxer/runtime/node"
)

// initErrorType is how the platform's logs and metrics name what check finds.
const initErrorType = "Runtime.BoxerInit"

// check finds out before the first event what no event could do with.
func check(library string) error {
	path, err := node.Library(library)
	if err != nil {
		return err
	}
	if err := checkLibrary(path); err != nil {
		return fmt.Errorf("the process monitor %s cannot be used: %w: publish the layer again", path, err)
	}
	dir, err := os.MkdirTemp("", "boxer-")
	if err != nil {
		return fmt.Errorf("no place for run files: %w: set TMPDIR to a directory that can be written", err)
	}
	return os.Remove(dir)
}

// machines are the e_machine of what functions run on.
var machines = map[string]uint16{"amd64": 62, "arm64": 183}

// checkLibrary sees to it that the loader will take it: what it does not take, it
// leaves out with a warning, and the guest runs without the overlay.
func checkLibrary(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	const header, segment, load = 64, 56, 1
	if len(data) < header || string(data[:5]) != "\x7fELF\x02" {
		return errors.New("it is no shared library")
	}
	number := binary.LittleEndian
	if machine := number.Uint16(data[18:]); machine != machines[runtime.GOARCH] {
		return fmt.Errorf("it is not for %s (its ELF machine is %d)", runtime.GOARCH, machine)
	}
	at := number.Uint64(data[32:])
	for range number.Uint16(data[56:]) {
		if at+segment > uint64(len(data)) {
			return errors.New("it is cut short")
		}
		if p := data[at:]; number.Uint32(p) == load && number.Uint64(p[8:])+number.Uint64(p[32:]) > uint64(len(data)) {
			return errors.New("it is cut short")
		}
		at += segment
	}
	return nil
}

// reportInit tells the platform why this runtime does not start.
func reportInit(ctx context.Context, why error) error {
	body, err := json.Marshal(map[string]any{"errorMessage": why.Error(), "errorType": initErrorType, "stackTrace": []string{}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+os.Getenv(apiVariable)+"/2018-06-01/runtime/init/error", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Lambda-Runtime-Function-Error-Type", initErrorType)
	client := http.Client{Transport: &http.Transport{}} // no proxy: it is this sandbox's
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("tell the platform: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		return fmt.Errorf("tell the platform: it answers %s", resp.Status)
	}
	return nil
}
