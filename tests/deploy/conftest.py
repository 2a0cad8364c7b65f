"""What the tests of a deployment share: the program, nodes of it, a Redis, and the chart rendered by Helm."""

import atexit
import copy
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import helm_python
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "shoprelay"
EXAMPLES = sorted(path.stem for path in (ROOT / "helm" / "examples").glob("*.yaml"))


def binary():
    """The program; tests/deploy.sh builds it."""
    path = Path(os.environ.get("SHOPRELAY_BINARY", ROOT / "target/debug/shoprelay"))
    assert path.exists(), f"there is no {path}; run tests/deploy.sh"
    return str(path)


def clean_environment(**variables):
    """This environment without settings of the relay, and with these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SHOPRELAY_")}
    return kept | variables


def shoprelay(*args, **variables):
    """Runs the program to its end."""
    return subprocess.run(
        [binary(), *args], env=clean_environment(**variables), capture_output=True, text=True, timeout=60
    )


def setting_defaults():
    """Every setting that the program has, as its settings file names it, with its default."""
    printed = shoprelay("check").stdout
    rows = [line.split() for line in printed.split("\n\n")[0].splitlines()[1:]]
    defaults = {key: "" if value == "-" else value for key, value, _ in rows}
    assert "limits.connections" in defaults, printed
    return defaults


def variable(key):
    """The environment variable of a setting."""
    return "SHOPRELAY_" + key.replace(".", "_").upper()


def example(name):
    """One of the chart's value sets."""
    return yaml.safe_load((ROOT / "helm" / "examples" / f"{name}.yaml").read_text())


def merged(values, changes):
    """Values with changes laid over them."""
    values = copy.deepcopy(values)
    for key, change in changes.items():
        values[key] = merged(values.get(key) or {}, change) if isinstance(change, dict) else change
    return values


def render(values, name="relay", namespace="prod"):
    """The chart's objects, as Helm's own engine makes them."""
    with helm_python.Chart.load(str(CHART)) as chart:
        chart.validate_schema(values)
        files = chart.render(values, name=name, namespace=namespace)
    texts = [text for path, text in files.items() if path.endswith(".yaml")]
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


def notes(values):
    """What Helm says after an installation."""
    with helm_python.Chart.load(str(CHART)) as chart:
        return chart.render(values, name="relay", namespace="prod")["shoprelay/templates/NOTES.txt"]


def of_kind(objects, kind, suffix=""):
    """The one object of this kind whose name ends so."""
    [found] = [it for it in objects if it["kind"] == kind and it["metadata"]["name"].endswith(suffix or "shoprelay")]
    return found


def eventually(what, ask, seconds=60):
    """Asks again and again until the answer is true, and gives it."""
    end = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < end, f"waited {seconds} s for: {what}"
        time.sleep(0.1)


def free_port():
    """A port nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def get(url):
    """The body of an answer with status 200, else nothing."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return None


class Process:
    """A program that runs until the test is over; its output is shown where it does not do what it should."""

    def __init__(self, *command, cwd=None, env=None):
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")
        self.process = subprocess.Popen(command, cwd=cwd, env=env, stdout=self.log, stderr=subprocess.STDOUT)

    def output(self):
        """What it has said so far."""
        return Path(self.log.name).read_text()

    def await_that(self, what, ask):
        """Waits until it does what it was started for."""

        def answer():
            assert self.process.poll() is None, f"{self.process.args[0]} has ended:\n{self.output()}"
            return ask()

        return eventually(what, answer)

    def stop(self):
        """Asks it to end, and sees that it does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode


class Node(Process):
    """A node of the relay on loopback; port 0 of everything, read from its first line."""

    def __init__(self, store, **variables):
        listeners = {f"SHOPRELAY_{name}": "127.0.0.1:0" for name in ("LISTEN", "API_LISTEN", "METRICS_LISTEN")}
        settings = listeners | {"SHOPRELAY_STORE": store, "SHOPRELAY_DRAIN_WINDOW": "0s"} | variables
        super().__init__(binary(), "serve", env=clean_environment(**settings))
        self.await_that("the node to be ready", lambda: '"ready"' in self.output())
        ready = next(json.loads(line) for line in self.output().splitlines() if '"ready"' in line)["fields"]
        self.devices, self.api, self.metrics = (ready[name] for name in ("listen", "api_listen", "metrics_listen"))
        self.tls = ready["tls_listen"]

    def scrape(self):
        """Its metrics, as Prometheus reads them."""
        return get(f"http://{self.metrics}/metrics")


@functools.cache
def certificates():
    """A folder with a certificate of a server at 127.0.0.1, the authority of devices, and its list, which is empty."""
    folder = Path(tempfile.mkdtemp()) / "pki"
    for args in (["ca"], ["server", "127.0.0.1"]):
        subprocess.run([ROOT / "examples/make-certificates.sh", folder, *args], check=True, capture_output=True)
    atexit.register(shutil.rmtree, folder.parent)
    return folder


def metric_names(text):
    """Every name of a series, those of histograms in their three forms."""
    return {re.split(r"[{ ]", line)[0] for line in text.splitlines() if line and not line.startswith("#")}


@pytest.fixture(scope="session")
def redis():
    """The address of an empty Redis."""
    port = free_port()
    folder = tempfile.mkdtemp()
    process = Process("redis-server", "--port", str(port), "--save", "", "--dir", folder)
    process.await_that(
        "Redis",
        lambda: subprocess.run(["redis-cli", "-p", str(port), "ping"], capture_output=True).stdout == b"PONG\n",
    )
    yield f"redis://127.0.0.1:{port}"
    process.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def nodes(redis):
    """Two nodes of one deployment, with everything on that makes metrics."""
    tls = {"LISTEN": "127.0.0.1:0", "CERT": certificates() / "server.pem", "KEY": certificates() / "server.key"}
    settings = {f"SHOPRELAY_TLS_{name}": str(value) for name, value in tls.items()}
    # A head that does not come is refused soon, so that there is a refusal to be counted.
    settings |= {"SHOPRELAY_EVENTS": "true", "SHOPRELAY_LEGACY": "true", "SHOPRELAY_TIMEOUTS_HEADER": "1s"}
    both = [Node(redis, **settings) for _ in range(2)]
    yield both
    for node in both:
        node.stop()
