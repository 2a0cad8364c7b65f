#!/usr/bin/env bash
# Tests the HTTP API against its own OpenAPI document with Schemathesis: requests made from the document,
# right and wrong ones, and what is answered compared with it. All checks are on.
#
#   tests/schemathesis.sh [more arguments of `schemathesis run`, such as --max-examples 500 --seed 1]
#
# Needs cargo, python3 with venv, and a package index once. It builds the node, starts it on an embedded
# store in a directory of its own, with a keys file whose one key may do everything, and seeds it: a shop
# with devices that stay connected, groups, users, attributes and messages. It exits non-zero where
# something is found, and leaves nothing behind but the virtual environment, in
# ${SCHEMATHESIS_VENV:-${TMPDIR:-/tmp}/shoprelay-schemathesis}. Not part of the gate: it takes minutes,
# and what it tries is random.
set -euo pipefail
cd "$(dirname "$0")/.."

version=4.32.5
venv=${SCHEMATHESIS_VENV:-${TMPDIR:-/tmp}/shoprelay-schemathesis}
if [ ! -x "$venv/bin/schemathesis" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet "schemathesis==$version"
fi
cargo build --quiet --bin shoprelay

dir=$(mktemp -d)
processes=()
finish() {
  for process in "${processes[@]}"; do
    kill "$process" 2>/dev/null && wait "$process" 2>/dev/null || true
  done
  rm -rf "$dir"
}
trap finish EXIT

key=schemathesis-0123456789abcdef
cat > "$dir/keys.toml" <<TOML
[[keys]]
name = "schemathesis"
key = "$key"
shops = ["*"]
scopes = ["read", "write", "operate"]
TOML

# Limits that are about load, not about the API's form, are out of the way.
SHOPRELAY_LIMITS_SHOP_PUBLISHES_PER_S=1000000 SHOPRELAY_LIMITS_LOG_ENTRIES=1000000 \
  "${CARGO_TARGET_DIR:-target}/debug/shoprelay" serve --listen 127.0.0.1:0 --api-listen 127.0.0.1:0 \
  --metrics-listen none --store "embedded:$dir/data" --api-keys-file "$dir/keys.toml" 2> "$dir/node.log" &
processes+=($!)
for _ in $(seq 100); do
  grep -q '"message":"ready"' "$dir/node.log" && break
  sleep 0.1
done
address() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$dir/node.log" | head -n 1; }
listen=$(address listen) api=$(address api_listen)
[ -n "$api" ] || { cat "$dir/node.log"; exit 1; }

# The devices: each logs in and acknowledges what it is sent. Of some, another of a new name takes the place
# when one is closed; none comes back, for what was deleted is expected to stay so.
cat > "$dir/seed.py" <<'PYTHON'
import base64, json, os, socket, struct, sys, threading, time, urllib.request

listen, api, key, out = sys.argv[1:]
DEVICES = 40
ready = threading.Barrier(DEVICES + 1)


def frame(opcode, payload):
    size = len(payload)
    head = bytes([0x80 | opcode]) + (bytes([0x80 | size]) if size < 126 else bytes([0xFE]) + struct.pack(">H", size))
    return head + bytes(4) + payload


def connect(device, role):
    host, port = listen.split(":")
    stream = socket.create_connection((host, int(port))).makefile("rwb", buffering=0)
    nonce = base64.b64encode(os.urandom(16)).decode()
    stream.write((f"GET /ws HTTP/1.1\r\nHost: {listen}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {nonce}\r\n\r\n").encode())
    while stream.readline() not in (b"\r\n", b""):
        pass
    send(stream, {"op": "login", "shop": "shop-1", "device": device, "role": role, "meta": {"model": "x"}})
    return stream


def send(stream, op):
    stream.write(frame(1, json.dumps(op).encode()))


def whole(stream, size):
    data = b""
    while len(data) < size:
        part = stream.read(size - len(data))
        if not part:
            raise OSError("gone")
        data += part
    return data


def live(name, role, group, user):
    first = True
    for n in range(1000 if role == "main" else 1):
        device = f"{name}-{n}"
        try:
            stream = connect(device, role)
            send(stream, {"op": "join", "group": group})
            send(stream, {"op": "bind", "user": user})
            send(stream, {"op": "attrs", "set": {"floor": 2}})
            send(stream, {"op": "notify", "type": "add", "to": "all", "table": "12", "data": {"n": 1}, "user_info": [1]})
            while True:
                head = whole(stream, 2)
                size = head[1] & 0x7F
                size = {126: lambda: struct.unpack(">H", whole(stream, 2))[0],
                        127: lambda: struct.unpack(">Q", whole(stream, 8))[0]}.get(size, lambda: size)()
                payload = whole(stream, size)
                if head[0] & 15 == 9:
                    stream.write(frame(10, payload))
                elif head[0] & 15 == 8:
                    break
                elif head[0] & 15 == 1:
                    op = json.loads(payload)
                    if op["op"] in ("message", "status"):
                        send(stream, {"op": "ack", "id": op["id"]})
                    elif op["op"] == "welcome":
                        conns[device] = op["conn"]
                    elif op["op"] == "accepted" and first:
                        first = False
                        ready.wait()
        except OSError:
            time.sleep(0.05)


conns = {}
for n in range(DEVICES):
    role = "main" if n < 3 else "sub"
    device = (f"device-{n}", role, ("bar", "roof")[n % 2], ("ann", "bob")[n % 2])
    threading.Thread(target=live, args=device, daemon=True).start()
ready.wait()


def call(method, path, body=None):
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{api}{path}", data, headers, method=method)
    return urllib.request.urlopen(request).read()


ids = [json.loads(call("POST", "/v1/shops/shop-1/messages", {"type": "add", "data": n}))["id"] for n in range(20)]
call("PUT", f"/v1/shops/shop-1/messages/{ids[0]}/status", {"status": "done"})
with open(out + ".part", "w") as file:
    # Known names now and then, and others as the document has them.
    known = {"shop": ["shop-1"], "device": list(conns), "id": ids, "group": ["bar", "roof"],
             "user": ["ann", "bob"], "conn": list(conns.values())}
    for name, values in known.items():
        file.write(f"[dictionaries.{name}]\nvalues = {json.dumps(values)}\n")
    file.write("[parameters]\n")
    for name in known:
        file.write(f'"path.{name}" = {{ dictionary = "{name}", probability = 0.7 }}\n')
os.rename(out + ".part", out)
while True:
    time.sleep(60)
PYTHON
"$venv/bin/python" "$dir/seed.py" "$listen" "$api" "$key" "$dir/schemathesis.toml" &
processes+=($!)
for _ in $(seq 200); do
  [ -e "$dir/schemathesis.toml" ] && break
  sleep 0.1
done

# What a JSON Schema cannot say: names and keys are bounded in bytes, so those that have too many of them in
# as many characters as are allowed are not tried here; what is written as an integer has 64 bits; a key that
# is given by header and by field must be the same.
cat > "$dir/hooks.py" <<'PYTHON'
from urllib.parse import unquote

import schemathesis

FREE = ("data", "user_info", "attrs")


def fits(value, limit=64):
    if isinstance(value, dict):
        return all(fits(member, 128 if name == "key" else 64) for name, member in value.items() if name not in FREE)
    if isinstance(value, list):
        return all(fits(item) for item in value)
    if isinstance(value, str) and "}" in value:  # a place among the connections has two names
        return all(fits(name) for name in value.split("}"))
    return not isinstance(value, str) or len(value) > limit or len(value.encode(errors="replace")) <= limit


@schemathesis.hook
def filter_body(context, body):
    return fits(body)


@schemathesis.hook
def filter_query(context, query):
    return fits(query)


@schemathesis.hook
def filter_path_parameters(context, path_parameters):
    return all(fits(unquote(str(value))) for value in (path_parameters or {}).values())


def bounded(value):
    if isinstance(value, dict):
        return {name: bounded(member) for name, member in value.items()}
    if isinstance(value, list):
        return [bounded(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return max(-(2**63), min(value, 2**64 - 1))
    return value


@schemathesis.hook
def map_body(context, body):
    return bounded(body)


@schemathesis.hook
def before_call(context, case, kwargs):
    header = (case.headers or {}).get("Idempotency-Key")
    is_right = case.meta is not None and case.meta.generation.mode.is_positive
    if is_right and header is not None and isinstance(case.body, dict) and case.body.get("key") is not None:
        case.body = {**case.body, "key": header}
PYTHON

# There, for it leaves a directory of what it has seen.
cd "$dir"
PYTHONPATH="$dir" SCHEMATHESIS_HOOKS=hooks "$venv/bin/schemathesis" --config-file "$dir/schemathesis.toml" \
  run "http://$api/openapi.json" --header "Authorization: Bearer $key" --checks all "$@"
