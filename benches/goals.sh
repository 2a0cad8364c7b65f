#!/usr/bin/env bash
# Measures every row of the goals on this machine: a release build of the relay and a Redis of its own on one core,
# the load on another, the floor beside it.
#
#   benches/goals.sh [ROW ...]       all rows, or those named: saturate rate-1000 rate-10000 one-main broadcast idle
#                                    logins mixed embedded
#
#   SECONDS_EACH=5 ROUNDS=3          how long a turn counts, and how many turns
#   SESSIONS=15000 SHOPS=1000        sizes
#   SERVER_CORE=0 LOAD_CORE=1        which cores
#   BINARY=target/release/shoprelay  the program that is measured; built where it is not named
#   LOAD_BINARY=$BINARY              the program that makes the load, so that two versions can be compared by one
#   ENCODING=json JSON=1             msgpack; one JSON document a row instead of tables
#   STORE_DIR=/var/tmp               where the embedded store of its row lies: a disk, not a tmpfs
#
# Needs redis-server and taskset. Leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${SECONDS_EACH:-5} rounds=${ROUNDS:-3} sessions=${SESSIONS:-15000} shops=${SHOPS:-1000}
server_core=${SERVER_CORE:-0} load_core=${LOAD_CORE:-1} encoding=${ENCODING:-json}
store_dir=${STORE_DIR:-/var/tmp}

for needed in redis-server redis-cli taskset; do
  command -v "$needed" >/dev/null || { echo "$needed is not here; apt-get install redis-server redis-tools util-linux" >&2; exit 1; }
done
if [ -z "${BINARY:-}" ]; then
  cargo build --release --bin shoprelay
  BINARY=target/release/shoprelay
fi
load=${LOAD_BINARY:-$BINARY}
ulimit -n "$(ulimit -Hn)"

scratch=$(mktemp -d "$store_dir/shoprelay-goals.XXXXXX")
relay_pid="" redis_pid=""
stop() {
  for pid in $relay_pid $redis_pid; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  relay_pid="" redis_pid=""
}
trap 'stop; rm -rf "$scratch"' EXIT

free_port() {
  local port
  while port=$((20000 + RANDOM % 10000)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}

# A relay on the server's core, on the store it is given; its address is in $url and $metrics.
start_relay() {
  local port metrics_port
  port=$(free_port) metrics_port=$(free_port)
  url=ws://127.0.0.1:$port metrics=http://127.0.0.1:$metrics_port/metrics
  SHOPRELAY_LISTEN=127.0.0.1:$port SHOPRELAY_API_LISTEN=none SHOPRELAY_METRICS_LISTEN=127.0.0.1:$metrics_port \
    SHOPRELAY_STORE=$1 SHOPRELAY_LOG=warn SHOPRELAY_DRAIN_WINDOW=1s \
    SHOPRELAY_LIMITS_SESSION_OPS_PER_S=100000 SHOPRELAY_LIMITS_SHOP_PUBLISHES_PER_S=100000 \
    SHOPRELAY_LIMITS_SHOP_CONNECTIONS=100000 SHOPRELAY_LIMITS_HANDSHAKES_PER_S=100000 \
    SHOPRELAY_LIMITS_LOGINS_PER_S=100000 SHOPRELAY_LIMITS_MEMORY_MIB=none \
    taskset -c "$server_core" "$BINARY" serve 2>"$scratch/relay.log" &
  relay_pid=$!
  for _ in $(seq 200); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return
    kill -0 "$relay_pid" 2>/dev/null || break
    sleep 0.1
  done
  echo "the relay did not start:" >&2
  cat "$scratch/relay.log" >&2
  exit 1
}

start_redis() {
  redis_port=$(free_port)
  taskset -c "$server_core" redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --appendonly no \
    --dir "$scratch" --logfile "$scratch/redis.log" &
  redis_pid=$!
  until redis-cli -p "$redis_port" ping >/dev/null 2>&1; do sleep 0.1; done
}

# One row: a relay that nobody has used before, and the load.
row() {
  local name=$1
  shift
  if [ ${#wanted[@]} -gt 0 ] && [[ ! " ${wanted[*]} " == *" $name "* ]]; then return; fi
  local pids=()
  if [ "$name" = embedded ]; then
    start_relay "embedded:$scratch/data"
    pids=(--pid "relay=$relay_pid" --sync-dir "$scratch")
  else
    start_redis
    start_relay "redis://127.0.0.1:$redis_port"
    pids=(--pid "relay=$relay_pid" --pid "redis=$redis_pid" --metrics-url "$metrics")
  fi
  [ -n "${JSON:-}" ] || echo "== $name"
  taskset -c "$load_core" "$load" bench "$@" --url "$url" "${pids[@]}" --encoding "$encoding" --rounds "$rounds" \
    --seconds "$seconds" --sessions "$sessions" ${JSON:+--json} || echo "$name: exit status $?" >&2
  [ -n "${JSON:-}" ] || echo
  stop
}

wanted=("$@")
row saturate saturate --floor --in-flight 128 --shops "$shops"
row rate-1000 rate --floor --rate 1000 --shops "$shops"
row rate-10000 rate --floor --rate 10000 --shops "$shops"
row one-main one-main --floor --rate 10000 --shops "$shops"
row broadcast broadcast --floor --rate 1
row idle idle --shops "$shops"
row logins logins --shops "$shops"
# A process has 20,000 files here: 15,000 sessions, and 900 shops of five.
row mixed mixed --shops "$((shops * 9 / 10))"
row embedded embedded --shops "$shops"
