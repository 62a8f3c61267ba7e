#!/bin/sh
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later

# Usage: tests/root.sh SUITE[/ARCHITECTURE] COMMAND [ARGUMENT...]
#
# Runs a command in a clone of what this checkout has committed, in a bare root of Debian: bookworm, trixie or
# sid, of this machine's architecture or i386. The root is made once, in BGLOOP_ROOTS (~/.cache/bgloop-roots), has
# git and nothing that the project needs, and keeps what the command installs: remove it to begin from nothing.
#
# The exit status is the command's, or 77, with the reason, where there cannot be such a root.

set -eu
cd "$(dirname "$0")/.."

[ $# -ge 2 ] || {
  sed -n 's/^# Usage: /Usage: /p' tests/root.sh >&2
  exit 2
}
suite=${1%%/*} architecture=
[ "$suite" = "$1" ] || architecture=${1#*/}
shift

skip ()
{
  echo "skipped: $suite${architecture:+/$architecture}: $*"
  exit 77
}

[ "$(id -u)" = 0 ] || skip 'only root makes one'
for program in debootstrap git unshare; do
  command -v "$program" >/dev/null || skip "there is no $program"
done

unshare --mount --pid --fork true 2>/dev/null || skip 'namespaces are not allowed here'
# Where 64-bit Linux runs programs of 32 bits it has this switch.
if [ "$architecture" = i386 ] && [ "$(uname -m)" = x86_64 ]; then
  [ -e /proc/sys/abi/vsyscall32 ] || skip 'this kernel runs no programs of 32 bits'
fi

roots=${BGLOOP_ROOTS:-${XDG_CACHE_HOME:-$HOME/.cache}/bgloop-roots}
root=$roots/$suite${architecture:+-$architecture}
if [ ! -e "$root.complete" ]; then
  mirror=$(sed -n -e 's/^URIs: *\([^ ]*\).*/\1/p' -e 's/^deb \(\[.*\] \)*\([^ ]*\).*/\2/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -n 1)
  : "${mirror:=http://deb.debian.org/debian}"
  rm -rf "$root"
  mkdir -p "$roots"
  debootstrap --variant=minbase --include=ca-certificates,git ${architecture:+--arch="$architecture"} \
    "$suite" "$root" "$mirror" >"$root.log" 2>&1 ||
    skip "debootstrap does not make one: $(tail -n 1 "$root.log")"
  # How this machine reaches the mirror.
  cp /etc/resolv.conf /etc/hosts "$root/etc"
  cp -R /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d"
  touch "$root.complete"
fi
chroot "$root" /bin/true 2>/dev/null || skip "this kernel runs none of its programs"

rm -rf "$root/src"
git -c safe.directory='*' clone -q . "$root/src"

# What is mounted goes with the command, and so do processes that it leaves behind.
export root
exec unshare --mount --propagation private --pid --fork --kill-child sh -c '
  mount -t proc proc "$root/proc"
  mount --rbind /dev "$root/dev"
  mount --rbind /sys "$root/sys"
  exec env -i HOME=/root LANG=C.UTF-8 TERM="${TERM:-dumb}" PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    $(env | grep -i "^[a-z]*_proxy=") chroot "$root" sh -c "cd /src && exec \"\$@\"" sh "$@"' root.sh "$@"
