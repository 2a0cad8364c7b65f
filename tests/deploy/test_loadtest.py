"""The load tests: every scenario plays against real nodes, and a relay that errs does not pass."""

import asyncio
import json
import os
import subprocess
import threading

import pytest
from conftest import ROOT, free_port
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

# Small, and short; what each is about is still in it. This machine may be busy, so no time is judged.
SMOKE = {
    "steady": {},
    "lunch": {"EVERY": "1s", "PEAK": "4"},
    "broadcast": {"SHOPS": "1", "SUBS": "20", "SETTLE": "3s"},
    "storm": {"ROUNDS": "2", "EVERY": "1s"},
    "slow": {"SHOPS": "1", "SLOW": "2s", "EVERY": "50ms"},
    "soak": {"CHURN": "1s", "EVERY": "500ms"},
    "publishers": {},
    "legacy": {},
}
SCENARIOS = sorted(path.stem for path in (ROOT / "loadtest").glob("*.js"))


def k6(scenario, **settings):
    """A run of a scenario, under way."""
    ours = {"SHOPS": "3", "SUBS": "2", "DURATION": "6s", "P99_MS": "30000"} | settings
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    return subprocess.Popen(
        ["k6", "run", "--quiet", "--no-usage-report", ROOT / "loadtest" / f"{scenario}.js"],
        env=environment | {name: value for name, value in ours.items() if value is not None},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def addresses(nodes):
    return {
        "NODES": ",".join(f"ws://{node.devices}/ws" for node in nodes),
        "API": ",".join(f"http://{node.api}" for node in nodes),
    }


@pytest.fixture(scope="module")
def results(nodes, tmp_path_factory):
    """What became of each scenario; they play side by side, in shops of their own."""
    folder = tmp_path_factory.mktemp("results")
    runs = {
        scenario: k6(scenario, **addresses(nodes), **settings, RUN=scenario, OUT=str(folder / scenario))
        for scenario, settings in SMOKE.items()
    }
    outputs = {scenario: run.communicate(timeout=180)[0] for scenario, run in runs.items()}
    return {scenario: (run.returncode, outputs[scenario], folder / scenario) for scenario, run in runs.items()}


def test_every_scenario_is_played():
    assert SCENARIOS == sorted(SMOKE)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_finds_every_promise_kept_and_writes_its_result(results, scenario):
    status, output, out = results[scenario]
    assert status == 0, output
    assert output.rstrip().endswith("\nyes"), output
    result = json.loads(out.with_suffix(".json").read_text())
    promised = {promise["name"] for promise in result["promises"]}
    assert {"lost", "repeated", "out_of_order", "unaccepted", "delivery", "shops_checked"} <= promised
    assert all(promise["kept"] for promise in result["promises"])
    assert result["metrics"]["received"]["values"]["count"] >= 10, output
    assert result["question"] in out.with_suffix(".html").read_text()


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"NODES": None}, ["NODES is missing", "such as NODES=ws://127.0.0.1:8080/ws", "loadtest/README.md"]),
        ({"NODES": "127.0.0.1:8080"}, ["begin with ws:// or wss://"]),
        ({"NODES": "ws://a/ws,,ws://b/ws"}, ["something is missing between two commas"]),
        ({"SHOPS": "many"}, ['SHOPS is "many"', "a whole number from 1 on"]),
        ({"DURATION": "10"}, ['DURATION is "10"', "30s, 2m or 1h"]),
        ({"INSTANCE": "2", "INSTANCES": "2"}, ["INSTANCE is 2 of 2", "0 to 1"]),
        ({"INSTANCE": "3", "INSTANCES": "4"}, ["no shop to play"]),
    ],
)
def test_what_is_missing_or_wrong_is_refused_with_advice(settings, parts):
    run = k6("steady", **({"NODES": "ws://127.0.0.1:1/ws"} | settings))
    output = run.communicate(timeout=60)[0].replace('\\"', '"')
    assert run.returncode != 0
    for part in parts:
        assert part in output, output


def test_publishers_ask_where_back_ends_connect():
    run = k6("publishers", NODES="ws://127.0.0.1:1/ws")
    assert "API is missing" in run.communicate(timeout=60)[0] and run.returncode != 0


def test_several_processes_share_the_shops(nodes):
    runs = [k6("steady", **addresses(nodes), INSTANCE=str(n), INSTANCES="2", RUN="shared") for n in range(2)]
    outputs = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert "count==2" in outputs[0] and "count==1" in outputs[1], outputs


class Faulty:
    """A proxy that does one wrong to the messages that a relay sends."""

    def __init__(self, target, fault):
        self.target, self.fault, self.port = target, fault, free_port()
        self.loop = asyncio.new_event_loop()
        self.started = threading.Event()
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=(self.run(),), daemon=True)

    def __enter__(self):
        self.thread.start()
        assert self.started.wait(30)
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.ended.set)
        self.thread.join(30)

    async def run(self):
        self.ended = asyncio.Event()
        async with serve(self.pass_on, "127.0.0.1", self.port, subprotocols=["shoprelay.v1.json"]):
            self.started.set()
            await self.ended.wait()

    async def pass_on(self, device):
        async with connect(f"ws://{self.target}/ws", subprotocols=["shoprelay.v1.json"]) as relay:
            await asyncio.gather(
                self.copy(device, relay, lambda frame: [frame]), self.copy(relay, device, self.spoil())
            )

    def spoil(self):
        """The frames that become of one, by what came before on this connection."""
        messages = []

        def spoilt(frame):
            if json.loads(frame)["op"] != "message":
                return [frame]
            messages.append(frame)
            return self.fault(len(messages), frame, messages)

        return spoilt

    @staticmethod
    async def copy(source, target, change):
        try:
            async for frame in source:
                for changed in change(frame):
                    await target.send(changed)
            await target.close()
        except ConnectionClosed:
            pass


FAULTS = {
    "lost": lambda n, frame, _: [] if n == 3 else [frame],
    "repeated": lambda n, frame, _: [frame, frame] if n == 3 else [frame],
    "out_of_order": lambda n, frame, seen: [] if n == 3 else [frame, seen[2]] if n == 4 else [frame],
    "unexpected": lambda n, frame, _: [frame, frame.replace('"id":"', '"id":"9')] if n == 3 else [frame],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_relay_that_errs_once_does_not_pass(nodes, fault):
    with Faulty(nodes[0].devices, FAULTS[fault]) as proxy:
        small = {"SHOPS": "1", "EVERY": "300ms", "DURATION": "3s", "SETTLE": "1s"}
        run = k6("steady", NODES=f"ws://127.0.0.1:{proxy.port}/ws", RUN=f"faulty-{fault}", **small)
        output = run.communicate(timeout=120)[0]
    assert run.returncode != 0 and "\nNO\n" in output, output
    broken = [line.split()[1] for line in output.splitlines() if line.startswith("BROKEN")]
    assert fault in broken, output
