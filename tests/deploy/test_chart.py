"""The chart: what Helm makes of it is what Kubernetes takes, and values that make no sense are refused."""

import json
import subprocess
import sys

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.prometheus_operator import v1 as prometheus_operator
from conftest import CHART, EXAMPLES, ROOT, example, merged, notes, of_kind, render

KUBERNETES = ["1.30", "1.34", "1.37"]
TLS = {
    "tls": {
        "enabled": True,
        "secretName": "cert",
        "clientCa": {"secretName": "ca"},
        "clientCrl": {"secretName": "crl"},
    }
}
# Everything the examples leave out.
CHANGES = {
    "devices by certificate, over TLS alone": merged(
        TLS,
        {
            "auth": {"mode": "mtls", "jwt": {"secrets": []}},
            "tls": {"keepPlain": False},
            "ingress": {"enabled": False},
            "service": {"type": "LoadBalancer"},
        },
    ),
    "TLS beside plain": TLS,
    "no API": {"api": {"enabled": False}, "auth": {"apiKeys": {"secretName": ""}}},
    "a balancer of the cloud": {
        "service": {
            "type": "LoadBalancer",
            "annotations": {"service.beta.kubernetes.io/aws-load-balancer-type": "external"},
            "externalTrafficPolicy": "Local",
            "loadBalancerSourceRanges": ["203.0.113.0/24"],
        },
        "preStopSeconds": 20,
    },
    "OpenShift": {"runAsUser": None, "networkPolicy": {"enabled": False}, "serviceAccount": {"create": False}},
    "everything a pod can have": {
        "podAnnotations": {"a/b": "c"},
        "podLabels": {"team": "tills"},
        "commonLabels": {"chain": "noodles"},
        "nodeSelector": {"pool": "relay"},
        "tolerations": [{"key": "relay", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "imagePullSecrets": [{"name": "registry"}],
        "image": {"digest": "sha256:" + "0" * 64},
        "topologySpread": {"zones": "", "machines": ""},
        "disruptionBudget": {"enabled": False},
    },
    "legacy devices by ALB": {
        "settings": {"legacy": {"enabled": True}, "log": "debug", "cors_origins": ["https://a.example"]},
        "ingress": {"controller": "alb"},
    },
}
ALL_VALUES = [pytest.param(example(name), id=name) for name in EXAMPLES] + [
    pytest.param(merged(example("one-region"), change), id=name) for name, change in CHANGES.items()
]


def strict(schema):
    """The same schema as a server checks it that refuses what it does not know."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(part) for key, part in schema.items()}
    if isinstance(schema.get("pattern"), str):
        # As Go takes it, and Python wants it in front.
        schema["pattern"] = schema["pattern"].replace("^(?i)", "(?i)^")
    if "properties" in schema and "additionalProperties" not in schema:
        schema["additionalProperties"] = False
    return schema


def custom_schemas():
    """Schemas of the kinds that are not Kubernetes' own."""
    schemas = {}
    for kind in ("ServiceMonitor", "PrometheusRule"):
        schema = strict(getattr(prometheus_operator, kind).model_json_schema())
        schema["properties"]["metadata"] = {"type": "object"}
        schemas[kind] = schema
    schemas["HTTPRoute"] = strict(json.loads((ROOT / "tests/deploy/schemas/httproute_v1.json").read_text()))
    return schemas


CUSTOM = custom_schemas()


@pytest.mark.parametrize("values", ALL_VALUES)
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_every_object(values, version):
    objects = render(values)
    for it in objects:
        if it["kind"] in CUSTOM:
            jsonschema.validate(it, CUSTOM[it["kind"]])
        else:
            kubernetes_validate.validate(it, version, strict=True)
    assert {"Deployment", "Service", "ConfigMap", "Pod"} <= {it["kind"] for it in objects}


def test_the_examples_make_every_kind_there_is():
    kinds = {it["kind"] for name in EXAMPLES for it in render(example(name))}
    templates = "".join(path.read_text() for path in (CHART / "templates").rglob("*.yaml"))
    assert kinds == {line.split()[1] for line in templates.splitlines() if line.startswith("kind: ")}


def test_the_schemas_of_other_kinds_refuse_a_slip():
    """Else the first test would prove nothing for them."""
    objects = render(merged(example("million-devices"), {}))
    for kind, path, slip in [
        ("ServiceMonitor", ("spec", "endpoints", 0), {"intervall": "5s"}),
        ("ServiceMonitor", ("spec", "endpoints", 0), {"interval": "5 seconds"}),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0), {"expresion": "1"}),
        ("HTTPRoute", ("spec", "rules", 0, "timeouts"), {"request": "never"}),
        ("HTTPRoute", ("spec", "rules", 0), {"timeout": {}}),
    ]:
        broken = json.loads(json.dumps(of_kind(objects, kind)))
        place = broken
        for step in path:
            place = place[step]
        place.update(slip)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, CUSTOM[kind])


BAD = [
    ({"replica": 3}, "replica"),
    ({"replicas": "three"}, "replicas"),
    ({"redis": {"url": {"value": "redis://:secret@host"}}}, "value"),
    ({"auth": {"mode": "maybe"}}, "mode"),
    ({"auth": {"jwt": {"secrets": [{"secretName": "x"}]}}}, "secretKey"),
    ({"settings": {"limits": {"connection": 1}}}, "connection"),
    ({"settings": {"heartbeat": 25}}, "heartbeat"),
    ({"settings": {"limits": {"connections": "many"}}}, "connections"),
    ({"settings": {"store": "redis://host"}}, "store"),
    ({"ingress": {"timeoutSeconds": 30}}, "timeoutSeconds"),
    ({"service": {"port": 0}}, "port"),
    ({"image": {"digest": "sha256:abc"}}, "digest"),
    ({"networkPolicy": {"redisPorts": []}}, "redisPorts"),
    ({"redis": {"url": {"secretName": ""}}}, "there is no Redis"),
    ({"redis": {"tryIt": {"enabled": True}}}, "leave one of them out"),
    ({"auth": {"mode": "none", "jwt": {"secrets": []}}}, "set it to jwt or mtls"),
    ({"auth": {"jwt": {"secrets": []}}}, "list one in auth.jwt.secrets"),
    ({"auth": {"mode": "none", "insecure": True}}, "no token would be looked at"),
    ({"auth": {"mode": "mtls", "jwt": {"secrets": []}}}, "needs tls.enabled"),
    ({**TLS, "auth": {"mode": "mtls", "jwt": {"secrets": []}}}, "before the relay sees a certificate"),
    ({**TLS, "auth": {"mode": "mtls", "jwt": {"secrets": []}}, "ingress": {"enabled": False}}, "at the plain port"),
    ({"tls": TLS["tls"] | {"keepPlain": False}}, "goes on to the plain port"),
    ({"auth": {"apiKeys": {"secretName": ""}}}, "the API is on and has no keys"),
    ({"tls": {"enabled": True}}, "name its Secret in tls.secretName"),
    ({"tls": {"secretName": "cert"}}, "set tls.enabled"),
    ({"tls": {"enabled": True, "secretName": "c", "clientCrl": {"secretName": "x"}}}, "without tls.clientCa"),
    ({"service": {"externalTrafficPolicy": "Local"}}, "service.type of LoadBalancer"),
    ({"ingress": {"hosts": []}}, "ingress.hosts"),
    ({"route": {"enabled": True}}, "route.parentRefs"),
    ({"autoscaling": {"enabled": True, "minReplicas": 11}}, "is above"),
    ({"autoscaling": {"enabled": True, "sessionsPerPod": 0, "cpuPercent": 0}}, "something to go by"),
    ({"rollout": {"maxSurge": 0}}, "no new version could ever come"),
]


@pytest.mark.parametrize(("change", "part"), BAD, ids=[part for _, part in BAD])
def test_what_nobody_could_mean_is_refused_and_named(change, part):
    with pytest.raises(helm_python.HelmError) as refusal:
        render(merged(example("one-region"), change))
    assert part in str(refusal.value)


def test_every_value_is_known_to_the_schema_and_no_other():
    def leaves(values, schema, path=()):
        for key, value in values.items():
            assert key in schema["properties"], f"values.schema.json lacks {'.'.join((*path, key))}"
            part = schema["properties"][key]
            if "$ref" in part:
                part = whole["definitions"][part["$ref"].rsplit("/", 1)[1]]
            if "properties" in part and key != "settings":
                assert part["additionalProperties"] is False, key
                leaves(value, part, (*path, key))
        unused = schema["properties"].keys() - values.keys() - {"global", "claims"}
        assert not unused, f"values.yaml lacks {unused} in {path}"

    whole = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(whole)
    leaves(yaml.safe_load((CHART / "values.yaml").read_text()), whole)


def test_the_readme_is_made_of_the_values():
    subprocess.run([sys.executable, ROOT / "helm/readme.py", "--check"], check=True)


def test_helm_finds_nothing_to_say_of_the_chart():
    findings = helm_python.lint(str(CHART), values=example("one-region"))
    text = json.dumps(findings)
    assert "ERROR" not in text and "WARNING" not in text, text


@pytest.mark.parametrize("values", ALL_VALUES)
def test_no_secret_is_made_or_held(values):
    objects = render(values)
    assert not [it for it in objects if it["kind"] == "Secret"]
    for it in objects:
        assert "://" not in json.dumps(it.get("data", {})).replace("https://a.example", "").replace("docs", "") or (
            it["metadata"]["name"].endswith("-dashboard")
        )


@pytest.mark.parametrize("values", ALL_VALUES)
def test_nothing_in_a_pod_may_do_more_than_it_must(values):
    for it in render(values):
        spec = it["spec"]["template"]["spec"] if it["kind"] in ("Deployment", "StatefulSet") else it.get("spec", {})
        if "containers" not in spec:
            continue
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


def test_other_settings_replace_the_nodes_and_the_same_ones_do_not():
    def checksum(settings):
        pod = of_kind(render(merged(example("try-it"), {"settings": settings})), "Deployment")["spec"]["template"]
        return pod["metadata"]["annotations"]["checksum/settings"]

    assert checksum({"log": "debug"}) == checksum({"log": "debug"}) != checksum({"log": "info"})


@pytest.mark.parametrize("values", ALL_VALUES)
def test_selectors_find_the_nodes_and_nothing_else(values):
    objects = render(values)
    pods = {
        it["metadata"]["name"]: it["spec"]["template"]["metadata"]["labels"]
        for it in objects
        if it["kind"] in ("Deployment", "StatefulSet")
    } | {it["metadata"]["name"]: it["metadata"]["labels"] for it in objects if it["kind"] == "Pod"}

    def found(selector):
        return {name for name, labels in pods.items() if selector.items() <= labels.items()}

    for it in objects:
        spec, name = it.get("spec", {}), it["metadata"]["name"]
        selectors = {
            "Service": lambda: spec["selector"],
            "Deployment": lambda: spec["selector"]["matchLabels"],
            "StatefulSet": lambda: spec["selector"]["matchLabels"],
            "PodDisruptionBudget": lambda: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda: spec["podSelector"]["matchLabels"],
        }
        if it["kind"] in selectors:
            expected = {"relay-shoprelay-redis"} if name.endswith("-redis") else {"relay-shoprelay"}
            assert found(selectors[it["kind"]]()) == expected, f"{it['kind']} {name}"


def test_a_monitor_finds_one_service_and_its_port():
    objects = render(example("one-region"))
    monitor = of_kind(objects, "ServiceMonitor")["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    [service] = [it for it in objects if it["kind"] == "Service" and wanted <= it["metadata"]["labels"].items()]
    # What the alert on a node that is down knows it by.
    assert "shoprelay" in service["metadata"]["labels"][monitor["jobLabel"]]
    assert monitor["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]


def test_the_notes_say_where_devices_and_back_ends_go():
    text = notes(example("one-region"))
    assert "wss://relay.example.com/ws" in text and "http://relay-shoprelay-api.prod:8081/v1/" in text
    assert "ANYONE" not in text
    text = notes(example("try-it"))
    assert "ws://relay-shoprelay.prod:80/ws" in text and "ANYONE" in text and "single one" in text
