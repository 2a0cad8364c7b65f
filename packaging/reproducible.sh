#!/usr/bin/env bash
# Builds what the Dockerfile builds, twice, in two folders of different names that have only the files the image is
# built from, and compares the bytes. Takes as long as two release builds from nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Once, for whoever works on while this runs: a comment that moves lines moves those of panics too.
tar --create --exclude-vcs --file "$work/source.tar" Cargo.toml Cargo.lock packaging/build.sh benches lua src
for folder in "$work/one" "$work/another-place"; do
  mkdir -p "$folder"
  tar --extract --file "$work/source.tar" --directory "$folder"
  env -u CARGO_TARGET_DIR "$folder/packaging/build.sh"
  sha256sum <"$folder/target/release/shoprelay" >>"$work/sums"
done
cat "$work/sums"
[ "$(sort -u "$work/sums" | wc -l)" = 1 ] || { echo "the two binaries differ" >&2; exit 1; }
cp "$work/one/target/release/shoprelay" "${1:-/dev/null}"
echo "the two binaries are the same"
