# certanchor: `make demo` shows the main job, `make test` runs every test. Needs Go 1.26, make and openssl;
# the race detector used by the tests also needs a C compiler, the OCSP conformance tests ocsptool (gnutls-bin), nginx and curl, and those of
# keys in PKCS #11 tokens SoftHSM (softhsm2).

GO      ?= go
BIN     := bin
TOOLS   := .bin
# Tests that start real Fabric networks run one package at a time: two cores do not carry two networks and honest deadlines.
NETPKGS := ./test-network/... ./internal/integration/... ./network/fabric/...
UNIT     = $(shell $(GO) list ./... | grep -v -e /test-network -e /internal/integration -e /network/fabric)

.PHONY: all build demo demo-fabric test test-unit test-network lint vuln fuzz bench clean help

all: build

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Keys in PKCS #11 tokens need cgo, so there must be a C compiler. Without one, or with `make build CGO_ENABLED=0`, the program is static, takes
# a tenth less to build, and refuses such keys (docs/hsm.md).
CGO_ENABLED ?= $(if $(shell command -v $(CC)),1,0)

build: ## bin/certanchor
	CGO_ENABLED=$(CGO_ENABLED) $(GO) build -trimpath -o $(BIN)/certanchor ./cmd/certanchor

# Who sees this for the first time waits for the compiler, so its optimiser stays out: 40 s instead of 60 s on two cores.
demo: ## one certificate's whole life on the embedded ledger
	@echo "building certanchor (the first time takes about a minute)"
	CGO_ENABLED=0 $(GO) build -trimpath -gcflags='all=-N -l' -ldflags='-s -w' -o $(TOOLS)/certanchor-demo ./cmd/certanchor
	$(TOOLS)/certanchor-demo demo

demo-fabric: build ## the same on a four-organisation Hyperledger Fabric network
	$(BIN)/certanchor demo --engine fabric

test: test-unit test-network ## all tests, the real Fabric network included

test-unit:
	$(GO) vet ./...
	$(GO) test -race -timeout 15m $(UNIT)
	# Under the race detector pools forget things, so allocations are counted without it.
	$(GO) test -run Allocat ./ocsp-bridge

test-network:
	$(GO) test -race -timeout 25m -p 1 -v $(NETPKGS)

lint: $(TOOLS)/staticcheck ## gofmt, go vet, staticcheck, and govulncheck if its database can be reached
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not gofmt'ed:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) -C internal/thirdparty/programs vet ./...
	$(TOOLS)/staticcheck ./...
	@if curl -sf -m 10 -o /dev/null https://vuln.go.dev/index/db.json; then $(MAKE) --no-print-directory vuln; \
	else echo "govulncheck not run: the Go vulnerability database cannot be reached"; fi

vuln: $(TOOLS)/govulncheck ## known vulnerabilities (asks the Go vulnerability database)
	$(TOOLS)/govulncheck ./...

$(TOOLS)/staticcheck $(TOOLS)/govulncheck: .ci/tools/go.mod
	@mkdir -p $(TOOLS)
	$(GO) -C .ci/tools build -o $(abspath $(TOOLS))/ tool
	@touch $(TOOLS)/staticcheck $(TOOLS)/govulncheck

FUZZTIME ?= 30s
fuzz: ## every fuzz target for FUZZTIME (30s)
	@$(GO) list ./... | while read -r pkg; do \
	  $(GO) test -list '^Fuzz' "$$pkg" | grep '^Fuzz' | while read -r f; do \
	    echo "== $$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$pkg" || exit 1; \
	  done || exit 1; \
	done

bench: build ## the figures of docs/benchmarks.md, on a real Fabric network
	$(BIN)/certanchor bench
	$(BIN)/certanchor bench status --samples 200
	$(BIN)/certanchor bench ocsp

clean: ## remove what make built
	rm -rf $(BIN) $(TOOLS)
