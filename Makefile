# Thin names for commands that can also be typed. `make help` lists them.

GO       ?= go
FUZZTIME ?= 30s
TOOL     := $(GO) tool -modfile=tools.mod

.DEFAULT_GOAL := check
.PHONY: help check run build test unit race deps fmt lint vulncheck fuzz churn bench clusterbench benchmarks verify chaos spec clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

check: fmt lint unit ## format, lint and run the tests without the race detector

run: ## run the server in local mode
	MODE=local $(GO) run cmd/server/main.go

build: ## build bin/letshare-server, static
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/letshare-server ./cmd/server

test: deps lint unit race ## everything: install what the tests need, lint, all tests, all tests with -race

unit: deps
	$(GO) test ./...

race: deps ## all tests with the race detector
	$(GO) test -race ./...

deps: ## install what the tests need: npm packages; gcc, node and chromium too, when root and missing
	@./test/deps.sh

fmt: ## format the code
	gofmt -w $$(git ls-files '*.go')

lint: ## gofmt, go vet, staticcheck, govulncheck
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "gofmt would change (run make fmt):"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	@$(MAKE) --no-print-directory vulncheck

# The vulnerability database is on the Internet; where it cannot be reached there is nothing
# to check against, which is said and is not a failure of the code.
vulncheck: ## look for known vulnerabilities
	@if out=$$($(TOOL) govulncheck ./... 2>&1); then echo "$$out"; \
	elif echo "$$out" | grep -q '^govulncheck: fetching vulnerabilities'; then \
		echo "govulncheck: NOT RUN: its database (vuln.go.dev) cannot be reached from here"; \
	else echo "$$out"; exit 1; fi

fuzz: ## run every fuzzer for FUZZTIME (30s)
	@GO="$(GO)" FUZZTIME="$(FUZZTIME)" ./test/fuzz.sh

churn: ## 100,000 connections that come and go, and 3,000 random schedules, with the race detector
	$(GO) test -race -timeout 60m ./internal/socket -run 'Churn|LayersCannot' -churn 100000 -schedules 3000
	$(GO) test -race -timeout 60m ./internal/wsconn -run Churn -churn 100000

bench: build ## measure all targets and write the table of docs/performance.md (10 minutes, on a quiet machine)
	bin/letshare-server load bench --commit "$$(git describe --always --dirty --abbrev=12)" \
		--out docs/performance.md --json bin/bench.json --html bin/bench.html

clusterbench: build ## the same load on one server and on 1, 2 and 3 nodes with a Redis, for docs/performance.md (5 minutes, on a quiet machine)
	bin/letshare-server load cluster --commit "$$(git describe --always --dirty --abbrev=12)" --out docs/performance.md --json bin/cluster.json

benchmarks: ## run the benchmarks of the code
	$(GO) test -run '^$$' -bench . -benchtime 200ms ./internal/...

verify: build ## 24,000,000 deliveries, each of them verified, and memory that does not grow
	bin/letshare-server load verify --own-server --json bin/verify.json --html bin/verify.html

chaos: ## kill the process and cut the power of the database, 200 times each; the contract in full; break Redis in all ways
	CHAOS=200 $(GO) test -count 1 -timeout 30m -v -run 'Kill|PowerLoss|TestTheContract' ./internal/engine/disk
	CHAOS=200 $(GO) test -count 1 -timeout 30m -v -parallel 1 -run Faults ./internal/engine/redis
	CHAOS=200 $(GO) test -count 1 -timeout 30m -v -parallel 1 -run 'Faults|Counts' ./internal/directory/redis
	CHAOS=200 $(GO) test -count 1 -timeout 30m -v ./test/cluster

spec: ## write the tables of docs/protocol-coverage.md from docs/spec-items.txt and what the code cites
	$(GO) test ./test/docs -run Clauses -update

clean: ## remove what the other targets made
	rm -rf bin test/sdk/js/node_modules internal/wsconn/testdata/node_modules
