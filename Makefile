# auditchain: `make` builds the plugin and the command, `make demo` shows them at work, `make test` tests them.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
TOOLS   := minio versitygw cosign staticcheck
MINIO_PKG      := github.com/minio/minio
VERSITYGW_PKG  := github.com/versity/versitygw/cmd/versitygw
COSIGN_PKG     := github.com/sigstore/cosign/v3/cmd/cosign
STATICCHECK_PKG := honnef.co/go/tools/cmd/staticcheck

GO_FILES := $(shell find chain record ingest storage query plugin cmd -name '*.go' -not -name '*_test.go') $(wildcard plugin/*.[ch]) go.mod go.sum
FUZZTIME ?= 1m

# What runs beside each other is tested with the race detector, the rest without; of the steps that fail in ingest a part.
RACED := ./chain/... ./record/... ./query/... ./ingest/disk/...

.PHONY: all build tools demo test test-long bench soak fuzz clean

all: build
build: build/out_auditchain.so build/auditchain

build/out_auditchain.so: $(GO_FILES)
	CGO_ENABLED=1 go build -trimpath -buildmode=c-shared -ldflags '$(LDFLAGS)' -o $@ ./plugin
	rm -f build/out_auditchain.h

build/auditchain: $(GO_FILES)
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/auditchain

# The servers and verifiers that tests run against, each pinned by a module of its own and built once.
tools: $(TOOLS:%=build/tools/%)

build/tools/minio: PKG = $(MINIO_PKG)
build/tools/versitygw: PKG = $(VERSITYGW_PKG)
build/tools/cosign: PKG = $(COSIGN_PKG)
build/tools/staticcheck: PKG = $(STATICCHECK_PKG)
build/tools/%: test/tools/%/go.mod test/tools/%/go.sum
	cd test/tools/$* && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o ../../../build/tools/$* $(PKG)

demo: build build/tools/versitygw
	go run ./test/demo

test: build tools
	gofmt -l . | (! grep .)
	go vet ./...
	build/tools/staticcheck ./...
	go test -race $(RACED) ./ingest
	AUDITCHAIN_REQUIRE_TOOLS=1 go test -timeout 14m $$(go list ./... | grep -v -F -x "$$(go list $(RACED))")
	cd test/peers/torchwood && AUDITCHAIN_REQUIRE_TOOLS=1 go test ./...

# More of the same: faults at random instants, system calls that fail, 200 rounds of kills, every fuzz target. An hour and more.
test-long: test
	AUDITCHAIN_LONG=1 go test -timeout 40m ./ingest ./test/e2e ./test/browser ./test/gpu
	go test -timeout 60m ./test/kill -rounds 200
	$(MAKE) fuzz

# Every reader of bytes from outside, for FUZZTIME each.
fuzz:
	@set -e; for package in $$(go list ./...); do \
	  for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
	    echo "$$package $$target"; \
	    go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 2s $$package; \
	  done; \
	done

# Ratios against peers, each pair in one run; takes about 15 minutes.
bench: build build/tools/minio
	go test -run '^$$' -bench 'FlushPath' -benchtime 2s ./ingest
	go test -run '^$$' -bench 'GroupCommit' -benchtime 1000x ./ingest
	go test -run '^$$' -bench 'Recovery|CatchUp' -benchtime 2x ./ingest
	cd test/bench/record-peers && go test -run '^$$' -bench . -benchtime 1s
	go test -run '^$$' -bench 'Evidence|Prove' -benchtime 30x ./query
	go run ./test/bench/verify
	go run ./test/bench/middleware
	go run ./test/bench/process

# The plugin at a steady rate, for SOAK, while the S3 server goes and comes: at the end it holds no more than at the beginning,
# and every record is in the bucket. Draws build/soak/soak.svg.
SOAK ?= 30m
soak: build build/tools/minio
	go run ./test/soak -duration $(SOAK)

clean:
	rm -rf build
