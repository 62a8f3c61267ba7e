#!/bin/sh
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later

# valgrind.sh PROGRAM [ARGUMENT...]: run it under memcheck, as a wrapper for `meson test`. Errors
# and definite leaks count. What it starts runs as it is: a test that needs a process of its own
# crashes it, or leaves it with loops alive. So do scripts.

set -eu
here=$(dirname "$0")

case $1 in
  *.sh | *.py | */python3) exec "$@" ;;
esac

# For tests of what valgrind itself does otherwise.
export BGLOOP_TEST_VALGRIND=1

exec valgrind --quiet --error-exitcode=99 --fair-sched=try --num-callers=30 \
  --trace-children=no --child-silent-after-fork=yes \
  --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \
  --suppressions=/usr/share/glib-2.0/valgrind/glib.supp --suppressions="$here/valgrind.supp" \
  "$@"
