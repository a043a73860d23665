#!/usr/bin/env bash
# Runs every fuzz target of the module for so many executions each (500000x).
# Not for so much time: before Go 1.27 a target that is at work when the time
# ends may fail for that alone (go.dev/issue/75804).
# Go fuzzes one target of one package a call, so the targets are listed first.
set -euo pipefail
cd "$(dirname "$0")/../.."
count=${1:-500000x}
found=0
while IFS=: read -r file target; do
	found=$((found + 1))
	go test "./$(dirname "$file")" -run '^$' -fuzz "^${target}\$" -fuzztime "$count" -fuzzminimizetime 1x -timeout 30m
done < <(git grep -oE '^func Fuzz[A-Za-z0-9_]+' -- '*_test.go' | sed 's/func //')
echo "fuzzed $found targets for $count each"
[ "$found" -gt 0 ]
