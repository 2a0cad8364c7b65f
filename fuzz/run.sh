#!/usr/bin/env bash
# Runs fuzz targets one after the other, all of them or those that are named, each for so many seconds:
#   fuzz/run.sh 300 [target ...]
# It stops at the first finding, which libFuzzer leaves in fuzz/artifacts/.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds="${1:?usage: fuzz/run.sh <seconds for each target> [target ...]}"
shift
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz

SHOPRELAY_SEEDS_TO="$PWD/fuzz/corpus" cargo test --quiet --lib properties::tests::every_property_is_a_fuzz_target
# cargo-fuzz asks for compiler flags that a stable toolchain has but keeps to itself. Not for the seeds: with
# another environment cargo builds every dependency anew.
export RUSTC_BOOTSTRAP=1
targets=("$@")
[ "${#targets[@]}" -gt 0 ] || mapfile -t targets < <(cargo fuzz list)
for target in "${targets[@]}"; do
  echo "== $target"
  # Without a sanitizer: there is no unsafe code of ours that it could watch.
  cargo fuzz run --sanitizer none "$target" -- \
    -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=64 -print_final_stats=1
done
