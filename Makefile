# SPDX-License-Identifier: Apache-2.0
# `make help` lists what can be done here.

VERSION  := 0.1.0
HOSTARCH := $(shell go env GOARCH 2>/dev/null || uname -m | sed 's/x86_64/amd64/;s/aarch64/arm64/')
OTHER    := $(if $(filter amd64,$(HOSTARCH)),arm64,amd64)
GOFLAGS_BUILD := -trimpath -buildvcs=false
# lambda.norpc: without what functions need that have no custom runtime, 150 kB.
# nethttpomithttp2: without HTTP/2, which nothing here speaks, 510 kB.
BOXER_TAGS := lambda.norpc,nethttpomithttp2
LDFLAGS  := -s -w -X main.version=$(VERSION)
GO_SRC   := $(shell find runtime layer provider -name '*.go' -not -name '*_test.go' 2>/dev/null) \
            $(wildcard layer/*.sh layer/*.tmpl layer/bootstrap*) go.mod go.sum
C_SRC    := $(wildcard lib/*.c lib/*.h lib/*.S lib/exports.map) lib/Makefile

# Lambda's architectures; both layers are built on either machine.
ARCHES   := amd64 arm64
LAYERS   := $(ARCHES:%=bin/boxer-layer-%.zip)

export CGO_ENABLED := 0
export PATH := $(CURDIR)/tools/bin:/usr/local/go/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help deps build demo screenshot test test-c test-go bench burst burst-docs burst-start bench-docs bench-fig8 bench-fig8-docs conformance failover failover-docs mesh nat renewal fuzz fuzz-go fuzz-calls lint docs man clean test-arm64 arm64
.PHONY: test-opentofu scale docs-check release release-check

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## install what building and testing need, and say why
	@tools/deps.sh build test

build: bin/boxer bin/libboxer.so $(LAYERS) bin/terraform-provider-boxer ## fill bin/: boxer, libboxer.so, both layers, the provider

bin/stage-%/boxer: $(GO_SRC)
	@tools/deps.sh --check build
	@mkdir -p $(@D)
	GOOS=linux GOARCH=$* go build $(GOFLAGS_BUILD) -tags $(BOXER_TAGS) -ldflags '$(LDFLAGS)' -o $@ ./runtime/cmd/boxer

# The one that people type has more commands than nodes need (tag cli), and may be larger.
bin/stage-%/boxer-cli: $(GO_SRC)
	@tools/deps.sh --check build
	@mkdir -p $(@D)
	GOOS=linux GOARCH=$* go build $(GOFLAGS_BUILD) -tags $(BOXER_TAGS),cli -ldflags '$(LDFLAGS)' -o $@ ./runtime/cmd/boxer

bin/stage-%/libboxer.so: $(C_SRC)
	@tools/deps.sh --check build
	@mkdir -p $(@D)
	$(MAKE) -s -C lib ARCH=$* OUT=$(CURDIR)/$@

bin/boxer: bin/stage-$(HOSTARCH)/boxer-cli
	cp $< $@.new && mv $@.new $@

bin/libboxer.so: bin/stage-$(HOSTARCH)/libboxer.so
	cp $< $@.new && mv $@.new $@

bin/boxer-layer-%.zip: bin/stage-%/boxer bin/stage-%/libboxer.so
	go run ./layer/cmd/layer -boxer bin/stage-$*/boxer -library bin/stage-$*/libboxer.so -out $@

.PRECIOUS: bin/stage-%/boxer bin/stage-%/boxer-cli bin/stage-%/libboxer.so bin/stage-%/terraform-provider-boxer

bin/stage-%/terraform-provider-boxer: $(LAYERS) $(GO_SRC)
	@mkdir -p $(@D)
	cp $(LAYERS) provider/layers/
	GOOS=linux GOARCH=$* go build $(GOFLAGS_BUILD) -tags embed_layers -ldflags '$(LDFLAGS)' -o $@ ./provider/cmd/terraform-provider-boxer

bin/terraform-provider-boxer: bin/stage-$(HOSTARCH)/terraform-provider-boxer
	cp $< $@.new && mv $@.new $@

demo: ## run the quickstart from nothing to nothing and show what happened
	@tools/deps.sh build demo
	@$(MAKE) --no-print-directory build
	@examples/quickstart/demo.sh

test: deps build docs-check test-c test-arm64 test-go ## every test: C, Go, end to end, provider

test-c:
	$(MAKE) -C lib test
	$(MAKE) -C lib format-check

# What monitor and supervisor share, as arm64 has it, under QEMU's user emulation (docs/arm64.md).
test-arm64:
ifeq ($(HOSTARCH),amd64)
	GOARCH=arm64 go test -exec qemu-aarch64-static ./runtime/table ./runtime/ipc ./runtime/config
endif

# The race detector needs cgo; only test binaries are built with it.
test-go:
	CGO_ENABLED=1 BOXER_BIN=$(CURDIR)/bin go test -tags cli -race -exec $(CURDIR)/tools/alone.sh -timeout 25m ./...
	go vet -tags cli ./...
	go vet ./runtime/cmd/boxer
	go vet -tags man,cli ./runtime/cmd/boxer

scale: deps build ## plan 200 nodes in 5 s, apply and destroy 50 in 60 s each, on the local platform: needs the machine for itself
	BOXER_SCALE=1 BOXER_BIN=$(CURDIR)/bin go test -count=1 -timeout 10m -run 'ManyNodes$$' -v ./provider

test-opentofu: deps build ## the provider's tests with OpenTofu, built from source once
	@tools/deps.sh opentofu
	CGO_ENABLED=1 BOXER_BIN=$(CURDIR)/bin TF_ACC_TERRAFORM_PATH=$(CURDIR)/tools/bin/tofu go test -race -count=1 -timeout 25m ./provider

bench: deps build ## measure ratios against native in one run: a table, bench/bench.json and a plot
	@tools/deps.sh bench
	@mkdir -p bench
	bin/boxer version
	BOXER_BIN=$(CURDIR)/bin BOXER_BENCH_OUT=$(CURDIR)/bench/bench.json go test -count=1 -timeout 20m -run '^TestBench$$' -v ./runtime/bench

burst-start: build ## measure 12 functions that start at once, bare ones and replicas of boxer scale: only that part of make bench
	@tools/deps.sh test
	@mkdir -p bench/start
	BOXER_BENCH_ONLY=start BOXER_BIN=$(CURDIR)/bin BOXER_BENCH_OUT=$(CURDIR)/bench/start/bench.json go test -count=1 -timeout 10m -run '^TestBench$$' -v ./runtime/bench

# BOXER_BURST_ONLY chooses: none, functions, vms, overprovisioned; the figure has what was measured so far.
burst: deps build ## put examples/burst under load, scaled in four ways, and draw it: bench/burst/burst.svg (7 minutes)
	@tools/deps.sh test
	@mkdir -p bench/burst
	BOXER_BIN=$(CURDIR)/bin BOXER_BURST_OUT=$(CURDIR)/bench/burst go test -count=1 -timeout 10m -run '^TestBurst$$' -v ./runtime/bench

burst-docs: ## put the figure and the table of the last `make burst` into docs/
	cp bench/burst/burst.svg bench/burst/burst-table.md docs/

bench-docs: ## put the table and the plot of the last `make bench` into docs/
	cp bench/bench-table.md bench/bench-connect.svg docs/

# BOXER_FIG8_PAIRS and BOXER_FIG8_REPS are the scale, BOXER_FIG8_FIRST goes on at a pair (docs/figure8.md).
bench-fig8: deps build ## connection set-up and round trip between all kinds of endpoints: a table and a figure in bench/fig8
	BOXER_BIN=$(CURDIR)/bin BOXER_FIG8_OUT=$(CURDIR)/bench/fig8 go test -count=1 -timeout 190m -run '^TestFigure8$$' -v ./runtime/bench

bench-fig8-docs: ## put the table and the figure of the last `make bench-fig8` into docs/
	cp bench/fig8/figure8-table.md bench/fig8/figure8.svg docs/

# BOXER_CONFORMANCE_MODULES and BOXER_CONFORMANCE_PAIRS choose, separated by commas.
conformance: build ## CPython's network tests, bare against Boxer on every transport: the difference, and bench/conformance.json
	@tools/deps.sh conformance
	@mkdir -p bench
	BOXER_BIN=$(CURDIR)/bin BOXER_CONFORMANCE_OUT=$(CURDIR)/bench/conformance.json go test -count=1 -timeout 120m -run '^TestConformance$$' -v ./runtime/conformance

renewal: build ## functions that end after 30 s, for 5 minutes under 200 requests a second: none may fail
	@tools/deps.sh test
	CGO_ENABLED=1 BOXER_BIN=$(CURDIR)/bin BOXER_RENEWALS=5m go test -count=1 -timeout 15m -run '^TestRenewals$$' -v ./runtime/e2e

failover: deps build ## kill a ZooKeeper node under reads, let its standby serve, hand back: numbers and the paper's Figure 12 in bench/failover
	@tools/deps.sh failover
	CGO_ENABLED=1 BOXER_BIN=$(CURDIR)/bin BOXER_FAILOVER_OUT=$(CURDIR)/bench/failover go test -count=1 -timeout 10m -run '^TestFailover$$' -v ./runtime/failover

failover-docs: ## put the numbers and the figure of the last `make failover` into docs/
	cp bench/failover/failover-table.md bench/failover/failover.svg docs/

mesh: build ## 64 functions behind NATs, all pairs at once, ten times
	CGO_ENABLED=1 BOXER_BIN=$(CURDIR)/bin BOXER_MESH=64 go test -count=10 -timeout 30m -run '^TestMesh$$' -v ./runtime/e2e

nat: build ## links cut for 30 s, NATs that forget, 10,000 strangers of each sort: what make test does in small
	CGO_ENABLED=1 BOXER_BIN=$(CURDIR)/bin BOXER_NAT=full go test -count=1 -exec $(CURDIR)/tools/alone.sh -timeout 10m -run '^(TestLinkCut|TestNATForgets)$$' -v ./runtime/e2e
	CGO_ENABLED=1 BOXER_BIN=$(CURDIR)/bin BOXER_FLOOD=10000 go test -count=1 -exec $(CURDIR)/tools/alone.sh -timeout 10m -run '^TestFlood$$' -v ./runtime/node

arm64: build ## boot an arm64 machine under QEMU, with a kernel of Lambda's series, and run the layer there
	@tools/deps.sh test arm64
	CGO_ENABLED=1 BOXER_BIN=$(CURDIR)/bin BOXER_ARM64=1 go test -count=1 -timeout 5m -run '^TestArm64' -v ./runtime/e2e

FUZZTIME ?= 60
SEQUENCES := 100000
TRANSPORT := .
fuzz-calls: build ## play SEQUENCES random sequences of socket calls natively and on each transport (or on TRANSPORT), and compare
	@tools/deps.sh build test
	CGO_ENABLED=1 BOXER_BIN=$(CURDIR)/bin BOXER_CALLS=$(SEQUENCES) go test -count=1 -timeout 300m -run '^TestCalls$$/$(TRANSPORT)' -v ./runtime/contract

fuzz: ## fuzz what reads foreign bytes, FUZZTIME seconds each
	@tools/deps.sh build fuzz
	$(MAKE) -C lib fuzz FUZZTIME=$(FUZZTIME)
	$(MAKE) fuzz-go FUZZTIME=$(FUZZTIME)

fuzz-go: ## only the readers written in Go
	tools/fuzz.sh $(FUZZTIME)

lint: ## golangci-lint, gofmt, vet, clang-format
	@tools/deps.sh lint
	$(MAKE) -C lib format-check
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo 'run gofmt -w on these'; exit 1; }
	go vet -tags cli ./...
	tools/bin/golangci-lint run ./...

docs: build ## regenerate the reference pages: the provider's, and of the process monitor
	@tools/deps.sh docs
	tools/docs.sh

docs-check: build ## fail if a reference page is not as `make docs` would write it
	@tools/deps.sh docs
	tools/docs.sh --check

screenshot: build ## make the picture of the dashboard in docs/ anew
	@tools/deps.sh test
	BOXER_BIN=$(CURDIR)/bin BOXER_SCREENSHOT=$(CURDIR)/docs/dashboard.png go test -count=1 -run '^TestDashboardPicture$$' ./runtime/e2e

man: ## write the command line's manual pages into bin/man (man -l bin/man/boxer.1)
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || date +%s)} \
		go run -tags man,cli -ldflags '$(LDFLAGS)' ./runtime/cmd/boxer man-pages bin/man

release: build man $(ARCHES:%=bin/stage-%/boxer-cli) $(ARCHES:%=bin/stage-%/terraform-provider-boxer) ## fill dist/ with what is published (docs/release.md)
	go run ./release -version $(VERSION) -bin bin -out dist

release-check: ## release the last commit twice, compare every byte, install and use it
	@tools/deps.sh build demo
	tools/release-check.sh

clean: ## remove everything that was built
	rm -rf bin dist bench lib/build tools/bin provider/layers/*.zip
