"""The chart against the program: what the one sets, the other takes."""

import re
import subprocess
import sys

import pytest
from conftest import (
    EXAMPLES,
    ROOT,
    binary,
    certificates,
    clean_environment,
    example,
    merged,
    of_kind,
    render,
    setting_defaults,
    shoprelay,
    variable,
)
from test_chart import ALL_VALUES

sys.path.append(str(ROOT / "helm"))
from schema import OWN  # noqa: E402

ADDRESSES = {"redis-url": "redis://relay:secret@redis.internal:6379/0"}
KEYS = '[[keys]]\nname = "test"\nkey = "0123456789abcdef"\nshops = ["*"]\nscopes = ["read"]\n'
# The public half of a key that is thrown away.
PUBLIC_KEY = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n"


def pod_of(values):
    """The pod of a node, and its container."""
    pod = of_kind(render(values), "Deployment")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    return pod, container


def environment_of(container):
    return {it["name"]: it.get("value", ADDRESSES["redis-url"]) for it in container["env"]}


def mount(values, folder):
    """The files that a pod is given, in a folder of ours."""
    objects = render(values)
    settings = of_kind(objects, "ConfigMap")["data"]["shoprelay.toml"]
    (folder / "settings").mkdir()
    (folder / "settings" / "shoprelay.toml").write_text(settings)
    (folder / "keys").mkdir()
    pod, _ = pod_of(values)
    for volume in pod["volumes"]:
        for source in volume.get("projected", {}).get("sources", []):
            for item in source["secret"]["items"]:
                (folder / "keys" / item["path"]).write_text(content_of(item["path"]))


def content_of(path):
    """A file of a Secret, by the name under which the chart mounts it."""
    if path == "api-keys.toml":
        return KEYS
    if path.startswith("jwt-public-key"):
        return PUBLIC_KEY
    if path.startswith("jwt-secret"):
        return "0123456789abcdef0123456789abcdef"
    parts = {
        "tls.crt": "server.pem",
        "tls.key": "server.key",
        "client-ca.crt": "client-ca.pem",
        "client.crl": "client-crl.pem",
        "redis-ca.crt": "server-ca.pem",
    }
    return (certificates() / parts[path]).read_text()


@pytest.mark.parametrize("values", ALL_VALUES)
def test_the_program_takes_the_settings_of_the_pod(values, tmp_path):
    """As a node would start in the pod: its variables, its settings file and its keys, by `shoprelay check`."""
    mount(values, tmp_path)
    _, container = pod_of(values)
    assert container["args"] == ["serve"]
    variables = {
        name: value.replace("/etc/shoprelay", str(tmp_path)) for name, value in environment_of(container).items()
    }
    checked = subprocess.run(
        [binary(), "check"], env=clean_environment(**variables), capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "warning:" not in checked.stdout, checked.stdout
    assert "secret@" not in checked.stdout


@pytest.mark.parametrize("values", ALL_VALUES)
def test_every_variable_of_the_pod_is_one_of_the_program(values):
    known = {variable(key) for key in setting_defaults()}
    _, container = pod_of(values)
    assert {it["name"] for it in container["env"]} <= known


def test_the_values_have_every_setting_that_the_chart_does_not_decide_itself():
    subprocess.run([sys.executable, ROOT / "helm/schema.py", "--check"], check=True)


def test_the_program_takes_every_setting_that_the_values_can_have(tmp_path):
    """Each with its default, so that no bound is in the way: it is the form of the settings file that is tested."""
    settings = {"cors_origins": ["https://a.example", "https://b.example"], "limits": {"log_entries": 100_000_000}}
    tables = {key.split(".")[0] for key in setting_defaults() if "." in key}
    for key, default in setting_defaults().items():
        table, _, name = (
            key.partition(".") if "." in key else (key, "", "enabled") if key in tables else ("", "", key)
        )
        value = {"true": True, "false": False}.get(default, int(default) if default.isdecimal() else default)
        if key not in OWN and value != "":
            place = settings.setdefault(table, {}) if table else settings
            place.setdefault(name, value)
    file = tmp_path / "shoprelay.toml"
    file.write_text(
        of_kind(render(merged(example("try-it"), {"settings": settings})), "ConfigMap")["data"]["shoprelay.toml"]
    )
    checked = shoprelay("check", "--config", str(file))
    assert checked.returncode == 0, file.read_text() + checked.stdout
    assert re.search(r"limits.log_entries +100000000 ", checked.stdout), checked.stdout
    assert re.search(r"cors_origins +https://a.example,https://b.example ", checked.stdout), checked.stdout


@pytest.mark.parametrize("values", ALL_VALUES)
def test_the_ports_of_pod_probes_services_and_policy_agree(values):
    objects = render(values)
    _, container = pod_of(values)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    listeners = {
        "devices": "SHOPRELAY_LISTEN",
        "devices-tls": "SHOPRELAY_TLS_LISTEN",
        "api": "SHOPRELAY_API_LISTEN",
        "metrics": "SHOPRELAY_METRICS_LISTEN",
    }
    environment = environment_of(container)
    listening = {name: environment.get(it, "none") for name, it in listeners.items()}
    assert {name: f"0.0.0.0:{port}" for name, port in ports.items()} == {
        name: address for name, address in listening.items() if address != "none"
    }
    for probe, path in [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]:
        assert container[probe]["httpGet"] == {"path": path, "port": "metrics"}
    served = set()
    for service in (
        it for it in objects if it["kind"] == "Service" and not it["metadata"]["name"].endswith("-redis")
    ):
        served |= {port["targetPort"] for port in service["spec"]["ports"]}
    assert served == set(ports)
    for policy in (
        it for it in objects if it["kind"] == "NetworkPolicy" and it["metadata"]["name"] == "relay-shoprelay"
    ):
        allowed = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        assert allowed == set(ports)
    [devices] = [it for it in objects if it["kind"] == "Service" and it["metadata"]["name"] == "relay-shoprelay"]
    by_name = {port["name"]: port["port"] for port in devices["spec"]["ports"]}
    for ingress in (it for it in objects if it["kind"] == "Ingress"):
        for rule in ingress["spec"]["rules"]:
            assert all(path["backend"]["service"]["port"]["name"] in by_name for path in rule["http"]["paths"])
    for route in (it for it in objects if it["kind"] == "HTTPRoute"):
        assert all(ref["port"] in by_name.values() for rule in route["spec"]["rules"] for ref in rule["backendRefs"])


@pytest.mark.parametrize("drain", [0, 30, 3600])
@pytest.mark.parametrize("pre_stop", [0, 20])
def test_the_grace_period_is_longer_than_the_drain_and_what_is_before_and_after_it(drain, pre_stop):
    pod, container = pod_of(merged(example("try-it"), {"drainSeconds": drain, "preStopSeconds": pre_stop}))
    assert environment_of(container)["SHOPRELAY_DRAIN_WINDOW"] == f"{drain}s"
    assert pod["terminationGracePeriodSeconds"] >= drain + pre_stop + 15
    sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert sleep == pre_stop


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_device_that_is_silent_between_two_heartbeats_is_cut_off_by_no_proxy(name):
    heartbeat = 25
    for it in render(example(name)):
        annotations = it["metadata"].get("annotations", {})
        if it["kind"] == "Ingress":
            limits = [int(value) for key, value in annotations.items() if "timeout" in key]
            assert limits and min(limits) > 2 * heartbeat
        if it["kind"] == "HTTPRoute":
            assert [rule["timeouts"] for rule in it["spec"]["rules"]] == [{"request": "0s", "backendRequest": "0s"}]


def test_what_helm_test_asks_is_a_question_of_the_program(nodes):
    pod = of_kind(render(example("try-it")), "Pod", "-ready")
    [container] = pod["spec"]["containers"]
    service = of_kind(render(example("try-it")), "Service", "-metrics")
    assert container["args"][-1] == f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    args = [*container["args"][:-1], nodes[0].metrics]
    answered = subprocess.run([binary(), *args], env=clean_environment(), capture_output=True, text=True, timeout=30)
    assert (answered.returncode, answered.stdout) == (0, "ready\n"), answered.stderr
