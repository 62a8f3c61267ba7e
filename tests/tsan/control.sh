#!/bin/sh
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later

# control.sh PROGRAM: is ThreadSanitizer silent about what is right and loud about what is wrong,
# on each of a number of runs? (TAP)

set -u
program=$1
runs=5

export G_SLICE=always-malloc
export TSAN_OPTIONS="suppressions=$(dirname "$0")/../tsan.supp exitcode=66"

output=$(mktemp)
trap 'rm -f "$output"' EXIT

# check NUMBER NAME STATUS REPORTED WAY...
check ()
{
  number=$1 name=$2 want_status=$3 want_reported=$4
  shift 4

  verdict=ok
  for run in $(seq "$runs"); do
    "$program" "$@" >"$output" 2>&1
    status=$?
    reported=no
    grep -q 'WARNING: ThreadSanitizer: data race' "$output" && reported=yes
    if [ "$status" != "$want_status" ] || [ "$reported" != "$want_reported" ]; then
      verdict='not ok'
      echo "# run $run: exit status $status, race reported: $reported"
      sed 's/^/# /' "$output"
    fi
  done
  echo "$verdict $number $name"
}

echo 1..18
number=0
for way in mutex recursive-mutex source reference count class context revival loop; do
  number=$((number + 1))
  check $number "/tsan/$way/correct-is-silent" 0 no "$way"
  number=$((number + 1))
  check $number "/tsan/$way/race-is-reported" 66 yes "$way" race
done
