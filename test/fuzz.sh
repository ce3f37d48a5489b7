#!/usr/bin/env bash
# Runs every fuzzer of the module for FUZZTIME, one after the other, and fails with the
# first finding.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
grep -rl --include='*_test.go' '^func Fuzz' internal | xargs -n1 dirname | sort -u | while read -r dir; do
	grep -rhoE '^func Fuzz[A-Za-z0-9]+' "$dir"/*_test.go | sed 's/^func //' | sort -u | while read -r name; do
		echo "== $dir $name (${FUZZTIME:-30s})"
		"$go" test "./$dir" -run '^$' -fuzz "^$name\$" -fuzztime "${FUZZTIME:-30s}"
	done
done
