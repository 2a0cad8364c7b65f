"""The pages for operators: their links lead somewhere, and their commands do what they say."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, Node, Process, binary, clean_environment, free_port
from test_monitoring import Device, work_of_a_shop

PAGES = ["README.md", "docs/operations.md", "helm/shoprelay/README.md", "loadtest/README.md"]
OPERATIONS = (ROOT / "docs/operations.md").read_text()


def anchors(page):
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_of_a_page_leads_somewhere(name):
    page = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{name}: {target}"
        assert not anchor or anchor in anchors(found), f"{name}: {target}"


def test_the_way_to_a_till_without_orders_can_be_gone_as_it_stands(nodes):
    """The section's commands, one after the other, for a till that is connected and does not acknowledge."""
    till = Device(nodes[0], "s1", "till-3", "main")
    section = OPERATIONS.split('## First: "till 3')[1].split("\n## ")[0]
    script = "".join(re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL))
    assert script.count("curl") >= 5 and "health --ready" in script
    script = script.replace("http://127.0.0.1:8081", f"http://{nodes[0].api}")
    path = f"{Path(binary()).resolve().parent}:{os.environ['PATH']}"
    environment = clean_environment(PATH=path, SHOPRELAY_METRICS_LISTEN=nodes[0].metrics)
    done = subprocess.run(["bash", "-ec", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("ready") and done.stdout.count("till-3") >= 3, done.stdout
    with pytest.raises(Exception, match="4005"):
        till.take("nothing")


def test_the_rights_in_redis_that_the_page_names_are_enough():
    [commands] = re.findall(r"the commands of `(@[^`]+)`", OPERATIONS)
    [pattern] = re.findall(r"the keys and channels `([^`]+)`", OPERATIONS)
    port = free_port()
    redis = Process("redis-server", "--port", str(port), "--save", "")
    admin = ["redis-cli", "-p", str(port)]
    redis.await_that("Redis", lambda: subprocess.run([*admin, "ping"], capture_output=True).stdout == b"PONG\n")
    rights = [f"~{pattern}", f"&{pattern}", *(f"+{group}" for group in commands.split())]
    subprocess.run(
        [*admin, "acl", "setuser", "relay", "on", ">secret", *rights], check=True, stdout=subprocess.DEVNULL
    )
    nodes = [Node(f"redis://relay:secret@127.0.0.1:{port}", SHOPRELAY_EVENTS="true") for _ in range(2)]
    try:
        work_of_a_shop(nodes)
        denied = subprocess.run([*admin, "acl", "log"], capture_output=True, text=True).stdout
        assert denied.strip() == "", denied
    finally:
        assert [node.stop() for node in nodes] == [0, 0], nodes[0].output()
        redis.stop()


def test_the_page_of_the_load_tests_lists_every_setting_there_is():
    page = (ROOT / "loadtest/README.md").read_text()
    sources = "".join(path.read_text() for path in (ROOT / "loadtest").rglob("*.js"))
    read = set(re.findall(r"\b(?:text|list|number|time)\('([A-Z][A-Z0-9_]+)'", sources)) | set(
        re.findall(r"__ENV\.([A-Z]\w+)", sources)
    )
    listed = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", page))
    assert read <= listed, read - listed
    for scenario in (ROOT / "loadtest").glob("*.js"):
        question = re.search(r"= summary\((['\"])(.+)\1\)", scenario.read_text())[2]
        assert f"| [`{scenario.stem}`]({scenario.name}) | {question} |" in page
