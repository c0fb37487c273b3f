// SPDX-License-Identifier: Apache-2.0

//go:build embed_layers

package layers

import (
	"embed"
	"fmt"
)

//go:embed boxer-layer-amd64.zip boxer-layer-arm64.zip
var zips embed.FS

// Zip returns the layer for one of Lambda's architectures: amd64 or arm64.
func Zip(arch string) ([]byte, error) {
	data, err := zips.ReadFile("boxer-layer-" + arch + ".zip")
	if err != nil {
		return nil, fmt.Errorf("this provider has no layer for %s: Boxer runs on amd64 and arm64", arch)
	}
	return data, nil
}
