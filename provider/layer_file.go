// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/layer"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// withLayer shows the layer of this machine's architecture to use as a file. It
// lives in memory: the local cloud keeps its own copy with each network, and
// nothing is left on disk whenever this process ends.
func withLayer(source LayerSource, use func(localcloud.Runtime) error) error {
	arch := runtime.GOARCH
	data, err := source(arch)
	if err != nil {
		return err
	}
	name := "boxer-layer-" + arch + ".zip"
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("unpack the layer: %w", os.NewSyscallError("memfd_create", err))
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	if _, err := file.Write(data); err != nil {
		return fmt.Errorf("unpack the layer: %w", err)
	}
	place := fmt.Sprintf("/proc/self/fd/%d", fd)
	err = use(localcloud.Runtime{Layers: map[string]string{arch: place}})
	if err == nil {
		return nil
	}
	named := func(err error) error { // users know no descriptors
		if text := err.Error(); strings.Contains(text, place) {
			return errors.New(strings.ReplaceAll(text, place, name))
		}
		return err
	}
	if !errors.Is(err, layer.ErrCorrupt) {
		return named(err)
	}
	if damage := layer.Verify(place, ""); damage != nil {
		err = damage // says it without the errand that found it out
	}
	return &explained{named(err),
		"The layer is part of this provider's binary, which is incomplete or was altered: install the provider again."}
}
