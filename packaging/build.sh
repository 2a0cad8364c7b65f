#!/usr/bin/env bash
# Builds the binary of a release: the locked dependencies, and no trace of the folder it was built in, so that the
# same commit gives the same bytes. The Dockerfile runs it, and packaging/reproducible.sh compares two of its results.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo_home=${CARGO_HOME:-$HOME/.cargo}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
# Told apart by ␟, because a path may have a space.
export CARGO_ENCODED_RUSTFLAGS="--remap-path-prefix=$target=/target"$'\x1f'"--remap-path-prefix=$PWD=/build"$'\x1f'"--remap-path-prefix=$cargo_home=/cargo"
export CFLAGS="-ffile-prefix-map=$target=/target -ffile-prefix-map=$cargo_home=/cargo"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0}
# A backtrace keeps the names of functions.
export CARGO_PROFILE_RELEASE_STRIP=debuginfo
cargo build --release --locked --bin shoprelay
