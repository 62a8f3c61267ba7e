#!/bin/sh
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later

# valgrind.sh PROGRAM [ARGUMENT...]: run it under memcheck, as a wrapper for `meson test`. Errors
# and definite leaks count. Scripts, and what they start, run as they are.

set -eu
here=$(dirname "$0")

case $1 in
  *.sh | *.py | */python3) exec "$@" ;;
esac

exec valgrind --quiet --error-exitcode=99 --fair-sched=try --num-callers=30 \
  --trace-children=yes --trace-children-skip='/usr/*,/bin/*' --child-silent-after-fork=yes \
  --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \
  --suppressions=/usr/share/glib-2.0/valgrind/glib.supp --suppressions="$here/valgrind.supp" \
  "$@"
