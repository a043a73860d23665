#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time each (default 30s).
# Go fuzzes one target of one package a call, so the targets are listed first.
set -euo pipefail
cd "$(dirname "$0")/../.."
time=${1:-30s}
found=0
while IFS=: read -r file target; do
	found=$((found + 1))
	go test "./$(dirname "$file")" -run '^$' -fuzz "^${target}\$" -fuzztime "$time" -fuzzminimizetime 1x -timeout 30m
done < <(git grep -oE '^func Fuzz[A-Za-z0-9_]+' -- '*_test.go' | sed 's/func //')
echo "fuzzed $found targets for $time each"
[ "$found" -gt 0 ]
