#!/usr/bin/env bash
# Instructions of the relay and of its Redis for one proven delivery at saturation, counted by callgrind: they tell a
# change of 2 %, on any machine, where seconds on a busy one do not tell 10 %. What the kernel does is not in them.
#
#   benches/delivery-counts.sh [OUT_DIR]    prints both counts; with OUT_DIR callgrind's files are kept there, for
#                                           `callgrind_annotate --inclusive=yes OUT_DIR/relay.callgrind`
#
#   BINARY=target/release/shoprelay         the relay that is counted, and the load; built where it is not named
#   SHOPS=200 DEVICES=4 SECONDS_EACH=5      of the load, and how long is counted
#
# Needs valgrind, redis-server and curl. Both run some twenty times slower than they do, so that figures of time mean
# nothing here; how many calls go together may differ a little from what it is at full speed.
set -euo pipefail
cd "$(dirname "$0")/.."

for needed in valgrind callgrind_control redis-server redis-cli curl; do
  command -v "$needed" >/dev/null || { echo "$needed is not here; apt-get install valgrind redis-server redis-tools curl" >&2; exit 1; }
done
if [ -z "${BINARY:-}" ]; then
  cargo build --release --bin shoprelay
  BINARY=target/release/shoprelay
fi
shops=${SHOPS:-200} devices=${DEVICES:-4} seconds=${SECONDS_EACH:-5}

scratch=$(mktemp -d)
out=${1:-$scratch}
mkdir -p "$out"
pids=()
stop() {
  for pid in "${pids[@]}"; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  pids=()
}
trap 'stop; rm -rf "$scratch"' EXIT

free_port() {
  local port
  while port=$((20000 + RANDOM % 10000)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}
# Waits until something answers there, as long as that process lives.
answers() {
  until (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do
    kill -0 "$2" 2>/dev/null || { cat "$scratch"/*.log >&2; exit 1; }
    sleep 0.2
  done
}
counted() {
  valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file="$out/$1.callgrind" "${@:2}" 2>"$scratch/$1.log" >&2 &
  pids+=($!)
}
count_now() { for pid in "${pids[@]:0:2}"; do callgrind_control -i "$1" "$pid" >/dev/null 2>&1; done; }
deliveries() { curl -s "http://127.0.0.1:$metrics/metrics" | awk '/^shoprelay_delivery_seconds_count/ { n += $2 } END { printf "%d", n }'; }
instructions() { awk '/^(summary|totals):/ { n = $2 } END { print n + 0 }' "$out/$1.callgrind"; }

redis=$(free_port)
counted redis redis-server --port "$redis" --bind 127.0.0.1 --save '' --appendonly no --dir "$scratch"
answers "$redis" "${pids[0]}"
relay=$(free_port) metrics=$(free_port)
SHOPRELAY_LISTEN=127.0.0.1:$relay SHOPRELAY_API_LISTEN=none SHOPRELAY_METRICS_LISTEN=127.0.0.1:$metrics \
  SHOPRELAY_STORE=redis://127.0.0.1:$redis SHOPRELAY_TIMEOUTS_STORE=20s SHOPRELAY_LOG=warn \
  SHOPRELAY_DRAIN_WINDOW=1s SHOPRELAY_LIMITS_SESSION_OPS_PER_S=100000 SHOPRELAY_LIMITS_SHOP_PUBLISHES_PER_S=100000 \
  SHOPRELAY_LIMITS_HANDSHAKES_PER_S=100000 SHOPRELAY_LIMITS_LOGINS_PER_S=100000 SHOPRELAY_LIMITS_MEMORY_MIB=none \
  counted relay "$BINARY" serve
answers "$relay" "${pids[1]}"

"$BINARY" bench saturate --shops "$shops" --devices "$devices" --rounds 1 \
  --seconds "$((seconds + 60))" --url "ws://127.0.0.1:$relay" >"$scratch/load.log" 2>&1 &
pids+=($!)
# Until everyone has logged in and the load is steady.
until [ "$(deliveries)" -gt 2000 ]; do
  kill -0 "${pids[2]}" 2>/dev/null || { cat "$scratch/load.log" >&2; exit 1; }
  sleep 0.5
done
before=$(deliveries)
count_now on
sleep "$seconds"
count_now off
count=$(($(deliveries) - before))
stop
if [ "$count" -eq 0 ]; then
  echo "nothing was delivered while it was counted" >&2
  exit 1
fi
echo "deliveries counted $count"
echo "relay $(($(instructions relay) / count))"
echo "redis $(($(instructions redis) / count))"
