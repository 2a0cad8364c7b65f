#!/usr/bin/env bash
# Instructions of the relay and of its Redis for one proven delivery at saturation, counted by callgrind: on an idle
# machine they tell a change of some 5 %, where seconds hardly tell 10 %. What the kernel does is not in them.
#
#   benches/delivery-counts.sh [OUT_DIR]    prints both counts; with OUT_DIR callgrind's files are kept there, for
#                                           `callgrind_annotate --inclusive=yes OUT_DIR/relay.callgrind`
#
#   BINARY=target/release/shoprelay         the relay that is counted, and the load; built where it is not named
#   SHOPS=200 DEVICES=4 SECONDS_EACH=5      of the load, and how long is counted
#
# Needs valgrind, redis-server and curl. They are counted one after the other, the other one at its full speed; the one
# that is counted runs some twenty times slower, so that figures of time mean nothing here.
set -euo pipefail
cd "$(dirname "$0")/.."

for needed in valgrind callgrind_control redis-server curl; do
  command -v "$needed" >/dev/null || { echo "$needed is not here; apt-get install valgrind redis-server curl" >&2; exit 1; }
done
if [ -z "${BINARY:-}" ]; then
  cargo build --release --bin shoprelay
  BINARY=target/release/shoprelay
fi
shops=${SHOPS:-200} devices=${DEVICES:-4} seconds=${SECONDS_EACH:-5}
export SHOPRELAY_API_LISTEN=none SHOPRELAY_LOG=warn SHOPRELAY_DRAIN_WINDOW=1s SHOPRELAY_TIMEOUTS_STORE=20s \
  SHOPRELAY_LIMITS_SESSION_OPS_PER_S=100000 SHOPRELAY_LIMITS_SHOP_PUBLISHES_PER_S=100000 \
  SHOPRELAY_LIMITS_HANDSHAKES_PER_S=100000 SHOPRELAY_LIMITS_LOGINS_PER_S=100000 SHOPRELAY_LIMITS_MEMORY_MIB=none

scratch=$(mktemp -d)
out=${1:-$scratch}
mkdir -p "$out"
declare -A pids=()
stop() {
  for name in load relay redis; do
    [ -n "${pids[$name]:-}" ] || continue
    kill "${pids[$name]}" 2>/dev/null || true
    wait "${pids[$name]}" 2>/dev/null || true
  done
  pids=()
}
trap 'stop; rm -rf "$scratch"' EXIT

free_port() {
  local port
  while port=$((20000 + RANDOM % 10000)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}

# Starts a program, under callgrind where it is the one to be counted, and waits until it answers on that port.
start() {
  local name=$1 port=$2 callgrind=()
  shift 2
  if [ "$name" = "$counted" ]; then
    callgrind=(valgrind --tool=callgrind --instr-atstart=no "--callgrind-out-file=$out/$name.callgrind")
  fi
  "${callgrind[@]}" "$@" >"$scratch/$name.log" 2>&1 &
  pids[$name]=$!
  until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    kill -0 "${pids[$name]}" 2>/dev/null || { cat "$scratch/$name.log" >&2; exit 1; }
    sleep 0.2
  done
}

deliveries() {
  curl -s "http://127.0.0.1:$metrics/metrics" |
    awk '/^shoprelay_delivery_seconds_count/ { n += $2 } END { printf "%d", n }'
}

for counted in relay redis; do
  redis=$(free_port)
  start redis "$redis" redis-server --port "$redis" --bind 127.0.0.1 --save '' --appendonly no --dir "$scratch"
  relay=$(free_port) metrics=$(free_port)
  export SHOPRELAY_LISTEN=127.0.0.1:$relay SHOPRELAY_METRICS_LISTEN=127.0.0.1:$metrics
  export SHOPRELAY_STORE=redis://127.0.0.1:$redis
  start relay "$relay" "$BINARY" serve
  "$BINARY" bench saturate --shops "$shops" --devices "$devices" --rounds 1 --seconds "$((seconds + 60))" \
    --url "ws://127.0.0.1:$relay" >"$scratch/load.log" 2>&1 &
  pids[load]=$!
  # Until everyone has logged in and the load is steady.
  until [ "$(deliveries)" -gt 4000 ]; do
    kill -0 "${pids[load]}" 2>/dev/null || { cat "$scratch/load.log" >&2; exit 1; }
    sleep 0.5
  done
  before=$(deliveries)
  callgrind_control -i on "${pids[$counted]}" >/dev/null 2>&1
  sleep "$seconds"
  callgrind_control -i off "${pids[$counted]}" >/dev/null 2>&1
  count=$(($(deliveries) - before))
  stop
  if [ "$count" -eq 0 ]; then
    echo "nothing was delivered while it was counted" >&2
    exit 1
  fi
  awk -v name="$counted" -v count="$count" '
    /^(summary|totals):/ { n = $2 }
    END { printf "%s %d (over %d deliveries)\n", name, n / count, count }
  ' "$out/$counted.callgrind"
done
