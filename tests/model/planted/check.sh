#!/bin/sh
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Says which of the planted faults do not apply to the tree, and fails if there are any.
# Usage: check.sh [PATCH…]

here=$(cd "$(dirname "$0")" && pwd) || exit 2
[ $# -gt 0 ] || set -- "$here"/*.patch
cd "$here/../../.." || exit 2

total=0
failed=0
for patch; do
  total=$((total + 1))
  git apply --check "$patch" 2>/dev/null && continue
  failed=$((failed + 1))
  echo "does not apply: $(basename "$patch" .patch)"
done

echo "$((total - failed)) of $total apply"
[ "$failed" -eq 0 ]
