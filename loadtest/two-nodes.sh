#!/usr/bin/env bash
# Two nodes on one Redis under shops.js; one of them is killed midway and started again on the same
# port. The exit status is k6's: 0 only if everything that was accepted was received.
set -euo pipefail
cd "$(dirname "$0")/.."

duration_s=${DURATION_S:-120}
down_s=${DOWN_S:-10}
binary=${BINARY:-target/release/shoprelay}
export SHOPS=${SHOPS:-100} DEVICES=${DEVICES:-400} SETTLE=${SETTLE:-60s}

[ -x "$binary" ] || { echo "there is no $binary; run: cargo build --release" >&2; exit 2; }
for tool in k6 redis-server redis-cli curl; do
  command -v "$tool" >/dev/null || { echo "$tool is missing" >&2; exit 2; }
done

work=$(mktemp -d)
pids=()
finish() {
  for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
  [ "${KEEP:-}" ] && echo "logs are in $work" || rm -rf "$work"
}
trap finish EXIT

free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
}

await() { # what, command…
  local what=$1; shift
  for _ in $(seq 200); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.1
  done
  echo "waited 20 s for $what" >&2
  tail -n 20 "$work"/*.log >&2
  exit 1
}

redis_port=$(free_port)
redis-server --port "$redis_port" --save "" --appendonly no --dir "$work" >"$work/redis.log" &
pids+=($!)
await redis redis-cli -p "$redis_port" ping

listen=() metrics=() node=()
for n in 0 1; do
  listen[n]=$(free_port)
  metrics[n]=$(free_port)
done

start_node() { # number
  local n=$1
  SHOPRELAY_LISTEN=127.0.0.1:${listen[n]} \
  SHOPRELAY_API_LISTEN=127.0.0.1:0 \
  SHOPRELAY_METRICS_LISTEN=127.0.0.1:${metrics[n]} \
  SHOPRELAY_STORE=redis://127.0.0.1:$redis_port \
    "$binary" serve 2>>"$work/node-$n.log" &
  node[n]=$!
  pids+=($!)
  await "node $n" curl -sf "http://127.0.0.1:${metrics[n]}/readyz"
}
start_node 0
start_node 1

NODES="ws://127.0.0.1:${listen[0]}/ws,ws://127.0.0.1:${listen[1]}/ws" DURATION="${duration_s}s" \
  k6 run --quiet loadtest/shops.js &
k6=$!
pids+=($k6)

sleep $((duration_s / 2))
echo "--- killing node 0"
kill -9 "${node[0]}"
wait "${node[0]}" 2>/dev/null || true
sleep "$down_s"
echo "--- starting node 0 again on port ${listen[0]}"
start_node 0

status=0
wait "$k6" || status=$?
for n in 0 1; do
  echo "--- node $n"
  curl -s "http://127.0.0.1:${metrics[n]}/metrics" |
    grep -E '^shoprelay_(messages_|publish_refused|feed_|log_rewinds|catchup|logins|closes|sessions)' || true
done
exit "$status"
