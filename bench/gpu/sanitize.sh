#!/usr/bin/env bash
# bench/gpu/sanitize.sh TOOL OUT COMMAND...: COMMAND under a tool of compute-sanitizer, on sentcore's kernels alone. Each
# process leaves its own OUT/TOOL.report.<pid>, as tests may share the work between several; fails where COMMAND fails, where
# a report counts an error, and where none counts at all.
set -uo pipefail
tool=$1 reports=$2/$1.report
shift 2
rm -f "$reports".*
compute-sanitizer --tool "$tool" --target-processes all --kernel-regex kns=sentcore --log-file "$reports.%p" "$@"
status=$?
summaries=$(cat "$reports".* 2>/dev/null | grep "SUMMARY:")
[ -n "$summaries" ] || { echo "$tool: no report has a summary"; exit 1; }
sort <<<"$summaries" | uniq -c
! grep -qE "SUMMARY: [1-9]" <<<"$summaries" || { echo "$tool: errors, see $reports.*"; exit 1; }
exit $status
