// SPDX-License-Identifier: Apache-2.0

// Package layers carries the layer zips inside the provider's binary, so that
// one file is all a user needs. `make build` puts the zips beside this file and
// builds with the tag embed_layers.
package layers
