#!/usr/bin/env bash
# Instructions of the hot parts, counted by callgrind: the same on a busy machine as on an idle one.
#
#   benches/hot-counts.sh            compares with benches/hot-counts.txt; exit status 1 where a part grew by more
#                                    than 5 % (TOLERANCE, in percent)
#   benches/hot-counts.sh --record   writes that file anew: after a change that is meant, on the compiler of the day
#
# Needs valgrind. The counts depend on the compiler and its version, which stand in the file.
set -euo pipefail
cd "$(dirname "$0")/.."

counts=benches/hot-counts.txt
tolerance=${TOLERANCE:-5}
times=2000

if ! command -v valgrind >/dev/null; then
  echo "valgrind is not here; apt-get install valgrind" >&2
  exit 1
fi

built=$(cargo bench --bench hot --no-run --message-format=json 2>/dev/null |
  sed -n 's/.*"name":"hot".*"executable":"\([^"]*\)".*/\1/p' | tail -1)
if [ -z "$built" ]; then
  cargo bench --bench hot --no-run
  exit 1
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
now="$scratch/now"
echo "# instructions a call, by callgrind; $(rustc --version)" >"$now"
for name in $("$built" --list-cases); do
  valgrind --tool=callgrind --callgrind-out-file="$scratch/out" --toggle-collect='hot::counted' \
    "$built" --count "$name" "$times" >/dev/null 2>"$scratch/err" || { cat "$scratch/err" >&2; exit 1; }
  collected=$(sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$scratch/err")
  if [ -z "$collected" ] || [ "$collected" -eq 0 ]; then
    echo "callgrind collected nothing for $name" >&2
    exit 1
  fi
  echo "$name $((collected / times))" >>"$now"
done

if [ "${1:-}" = "--record" ] || [ ! -f "$counts" ]; then
  cp "$now" "$counts"
  cat "$counts"
  exit 0
fi

awk -v tolerance="$tolerance" '
  /^#/ { next }
  NR == FNR { before[$1] = $2; next }
  {
    if (!($1 in before)) { printf "%-34s %10d   new\n", $1, $2; next }
    change = 100 * ($2 - before[$1]) / before[$1]
    worse = change > tolerance
    bad += worse
    printf "%-34s %10d -> %10d  %+6.1f %%%s\n", $1, before[$1], $2, change, worse ? "  MORE" : ""
  }
  END { exit bad > 0 }
' "$counts" "$now"
