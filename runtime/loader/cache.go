// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
)

// The format of /etc/ld.so.cache since glibc 2.2. Before it in the file there may be one
// in the older format, with the places of its strings.
const (
	cacheMagic    = "glibc-ld.so.cache1.1"
	cacheOldMagic = "ld.so-1.7.0"
	cacheHeader   = 48 // magic, numbers, flags, unused
	cacheEntry    = 24 // flags, key, value, version, capabilities
	cacheOldEntry = 12
)

// cacheFlags of libraries for a machine's 64 bit glibc.
var cacheFlags = map[string]uint32{"amd64": 0x0303, "arm64": 0x0a03}

var errCache = errors.New("not a cache of libraries that can be read")

// parseCache returns the libraries of ld.so.cache that any processor of that
// architecture can run, by name: those for newer ones may not run elsewhere.
func parseCache(data []byte, arch string) (map[string]string, error) {
	if bytes.HasPrefix(data, []byte(cacheOldMagic)) {
		if len(data) < 16 {
			return nil, errCache
		}
		skip := 16 + uint64(binary.NativeEndian.Uint32(data[12:]))*cacheOldEntry
		skip = (skip + 7) &^ 7
		if skip > uint64(len(data)) {
			return nil, errCache
		}
		data = data[skip:]
	}
	if len(data) < cacheHeader || !bytes.HasPrefix(data, []byte(cacheMagic)) {
		return nil, errCache
	}
	count := uint64(binary.NativeEndian.Uint32(data[20:]))
	if count > uint64(len(data)-cacheHeader)/cacheEntry {
		return nil, errCache
	}
	text := func(at uint32) string {
		if uint64(at) >= uint64(len(data)) {
			return ""
		}
		rest := data[at:]
		end := bytes.IndexByte(rest[:min(len(rest), maxInterp)], 0)
		if end < 0 {
			return ""
		}
		return string(rest[:end])
	}
	found := map[string]string{}
	for i := range count {
		e := data[cacheHeader+i*cacheEntry:]
		if binary.NativeEndian.Uint32(e) != cacheFlags[arch] || binary.NativeEndian.Uint64(e[16:]) != 0 {
			continue
		}
		name, path := text(binary.NativeEndian.Uint32(e[4:])), text(binary.NativeEndian.Uint32(e[8:]))
		if _, known := found[name]; !known && name != "" && strings.HasPrefix(path, "/") {
			found[name] = path
		}
	}
	return found, nil
}
