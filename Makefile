# `make help` lists what there is. Everything a target needs that is not Go
# itself is installed by `make deps`, into the system (apt) or into .tools/.

SHELL       := /bin/bash
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS     := -s -w -X main.version=$(VERSION)
TOOLS       := $(CURDIR)/.tools/bin
GOLANGCI    := $(TOOLS)/golangci-lint
GOLANGCI_V  := v2.15.0
UNIT        := ./cluster/... ./cmd/... ./fsm/... ./lb/... ./proxy/...
FUZZTIME    ?= 500000x
BENCHTIME   ?= 1s

export CGO_ENABLED ?= 0

.DEFAULT_GOAL := help
.PHONY: help build run test deps lint unit race e2e fuzz bench tidy-check clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

build: ## build bin/srsx, one static binary
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/srsx ./cmd/srsx

run: build ## one peer with a small origin inside and a test clip at live/demo
	exec bin/srsx agent -dev

test: deps tidy-check lint unit race e2e ## install what the tests need and run all that must hold
	$(MAKE) fuzz FUZZTIME=10000x

deps: $(GOLANGCI) ## install the real parts: origins, encoders, players, browser
	test/tools/install.sh

$(GOLANGCI):
	GOBIN=$(TOOLS) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_V)

lint: $(GOLANGCI) ## golangci-lint with .golangci.yml
	$(GOLANGCI) run ./...

tidy-check: ## go.mod and go.sum are what the sources need
	go mod tidy -diff

unit: ## unit, contract and arrow tests
	go test -timeout 15m $(UNIT) ./test/arch/... ./test/origintest/...

race: export CGO_ENABLED = 1
race: ## the unit tests under the race detector
	go test -race -timeout 20m $(UNIT)

# Tests on hosts of their own run beside each other: one of them takes five minutes.
e2e: build ## the real binary, real origins and encoders, hosts in network namespaces
	go test -count=1 -timeout 30m -parallel 4 ./test/netns/... ./test/e2e/...

fuzz: ## every fuzz target for FUZZTIME executions each (500000x)
	test/tools/fuzz.sh $(FUZZTIME)

bench: build ## the figures of a cluster, then micro-benchmarks and the million placements
	go test -run '^$$' -bench . -timeout 20m ./test/bench
	go test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) $(UNIT)

clean: ## remove what was built
	rm -rf bin .tools test/artifacts
