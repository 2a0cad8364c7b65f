"""Alerts and dashboard: every query asks for what a running node has, and a real Prometheus answers it."""

import json
import re
import signal
import socket
import ssl
import subprocess
import urllib.parse
import urllib.request

import pytest
import yaml
from conftest import CHART, ROOT, Process, certificates, eventually, free_port, get, metric_names
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

ALERTS = yaml.safe_load((CHART / "files/alerts.yaml").read_text())["groups"]
DASHBOARD = json.loads((CHART / "files/dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
METRIC = re.compile(r"\bshoprelay_\w+")


class Device:
    """A device on one connection, which acknowledges what it is sent."""

    def __init__(self, node, shop, name, role):
        self.socket = connect(f"ws://{node.devices}/ws", subprotocols=["shoprelay.v1.json"])
        self.ask({"op": "login", "shop": shop, "device": name, "role": role}, "welcome")

    def ask(self, op, answer):
        """Sends an op and waits for its answer."""
        self.socket.send(json.dumps(op))
        return self.take(answer)

    def take(self, kind):
        """Waits for an op of this kind; messages are acknowledged on the way."""
        while True:
            op = json.loads(self.socket.recv(timeout=30))
            if op["op"] == "message":
                self.socket.send(json.dumps({"op": "ack", "id": op["id"]}))
            if op["op"] == kind:
                return op


def work_of_a_shop(nodes):
    """A little of everything that a node counts."""
    till = Device(nodes[0], "s1", "till", "main")
    hand = Device(nodes[1], "s1", "hand", "sub")
    for _ in range(3):
        hand.ask({"op": "notify", "type": "add", "data": {}}, "accepted")
        till.take("message")
    till.ask({"op": "notify", "type": "menu"}, "accepted")
    body = json.dumps({"type": "add", "data": 1}).encode()
    for shop in ("s1", "nobody"):
        request = urllib.request.Request(
            f"http://{nodes[0].api}/v1/shops/{shop}/messages", body, {"Content-Type": "application/json"}
        )
        try:
            urllib.request.urlopen(request).close()
        except urllib.error.HTTPError as refusal:
            assert shop == "nobody", refusal
    if nodes[0].tls != "none":
        context = ssl.create_default_context(cafile=certificates() / "server-ca.pem")
        connect(f"wss://{nodes[0].tls}/ws", ssl=context).close()
        nodes[0].process.send_signal(signal.SIGHUP)
        eventually("the files to be read anew", lambda: "shoprelay_tls_reloads_total{" in nodes[0].scrape())
    with socket.create_connection(nodes[0].devices.rsplit(":", 1)) as silent:
        silent.settimeout(30)
        silent.recv(1)
    Device(nodes[1], "s2", "lonely", "sub").ask({"op": "notify", "type": "add"}, "error")
    hand.ask({"op": "dance"}, "error")
    for device in (till, hand):
        device.socket.send(json.dumps({"op": "logout"}))
        with pytest.raises(ConnectionClosed, match="1000"):
            device.take("nothing")


@pytest.fixture(scope="module")
def exposed(nodes):
    """Names of everything that two nodes expose after a little work."""
    work_of_a_shop(nodes)
    return set().union(*(metric_names(node.scrape()) for node in nodes))


def test_every_query_of_the_dashboard_asks_for_what_a_node_has(exposed):
    texts = QUERIES + [(it["name"], it["expr"]) for it in DASHBOARD["annotations"]["list"]]
    texts += [(it["name"], it["definition"]) for it in DASHBOARD["templating"]["list"] if "definition" in it]
    missing = {(title, name) for title, text in texts for name in METRIC.findall(text) if name not in exposed}
    assert not missing


def test_every_alert_asks_for_what_a_node_has(exposed):
    rules = [rule for group in ALERTS for rule in group["rules"]]
    missing = {
        (rule["alert"], name) for rule in rules for name in METRIC.findall(rule["expr"]) if name not in exposed
    }
    assert not missing


def test_the_dashboard_shows_every_metric_of_a_node(exposed):
    asked = {name for _, text in QUERIES for name in METRIC.findall(text)} | {"shoprelay_build_info"}
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exposed}
    unseen = {name for name in families if not any(re.sub(r"_(bucket|count)$", "", it) == name for it in asked)}
    assert not unseen


def test_every_panel_says_what_it_shows_and_has_a_place_of_its_own():
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_rules_fire_on_what_they_should_and_on_nothing_else():
    rules = {rule["alert"] for group in ALERTS for rule in group["rules"]}
    tests = yaml.safe_load((ROOT / "tests/deploy/alerts.yaml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == rules, "an alert is not tested"
    subprocess.run(["promtool", "check", "rules", CHART / "files/alerts.yaml"], check=True)
    subprocess.run(["promtool", "test", "rules", ROOT / "tests/deploy/alerts.yaml"], check=True)


def test_every_alert_has_an_entry_in_the_operations_page():
    page = (ROOT / "docs/operations.md").read_text()
    anchors = {heading.lower() for heading in re.findall(r"^### (\w+)$", page, re.MULTILINE)}
    for rule in (rule for group in ALERTS for rule in group["rules"]):
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["alert"].lower() in anchors, f"docs/operations.md lacks ### {rule['alert']}"
        anchors.remove(rule["alert"].lower())
    assert not {name for name in anchors if name.startswith("shoprelay")}, "an entry without an alert"


@pytest.fixture(scope="module")
def prometheus(nodes, tmp_path_factory):
    """A real Prometheus that scrapes both nodes and has the alerts."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(CHART / "files/alerts.yaml")],
        "scrape_configs": [
            {"job_name": "shoprelay", "static_configs": [{"targets": [node.metrics for node in nodes]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    process = Process(
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
    )
    process.await_that("Prometheus", lambda: get(f"http://{address}/-/ready"))
    yield f"http://{address}/api/v1"
    process.stop()


def ask(prometheus, expression):
    """What Prometheus answers to a query of the dashboard."""
    for name, value in {"$__rate_interval": "1m", "$job": ".*", "$instance": ".*"}.items():
        expression = expression.replace(name, value)
    query = urllib.parse.urlencode({"query": expression})
    found = json.loads(get(f"{prometheus}/query?{query}"))["data"]["result"]
    return [series for series in found if series["value"][1] != "NaN"]


def test_a_real_prometheus_answers_every_query_of_the_dashboard(prometheus, nodes, exposed):
    eventually("both nodes to be scraped", lambda: len(ask(prometheus, "shoprelay_ready == 1")) == 2)
    # What has no series before it happens first shows no rate then; the second time it does.
    work_of_a_shop(nodes)
    for title, expression in QUERIES:
        eventually(f"an answer for {title}: {expression}", lambda: ask(prometheus, expression))
    devices = eventually(
        "devices to be counted", lambda: ask(prometheus, "sum(rate(shoprelay_logins_total[1m])) > 0")
    )
    assert len(devices) == 1


def test_a_real_prometheus_evaluates_every_alert_and_none_fires(prometheus, nodes, exposed):
    def evaluated():
        groups = json.loads(get(f"{prometheus}/rules"))["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return rules if rules and all(rule["health"] != "unknown" for rule in rules) else None

    rules = eventually("every rule to be evaluated", evaluated)
    assert {rule["name"]: rule["health"] for rule in rules} == {
        rule["alert"]: "ok" for group in ALERTS for rule in group["rules"]
    }
    assert not [rule["name"] for rule in rules if rule["state"] == "firing"]
