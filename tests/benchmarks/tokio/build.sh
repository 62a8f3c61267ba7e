#!/bin/sh
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later

# build.sh SOURCE_DIR SCRATCH_DIR OUTPUT: the static library, from Debian's crates only
set -eu
PATH=/usr/bin:$PATH
mkdir -p "$2/home"
cat >"$2/home/config.toml" <<'END'
[source.crates-io]
replace-with = "debian"
[source.debian]
directory = "/usr/share/cargo/registry"
END
cp "$1/Cargo.toml" "$1/lib.rs" "$2/"
CARGO_HOME=$2/home cargo build --quiet --release --offline --manifest-path "$2/Cargo.toml" \
  --target-dir "$2/target"
cp "$2/target/release/libbench_tokio.a" "$3"
