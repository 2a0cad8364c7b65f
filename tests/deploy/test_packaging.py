"""The container and the systemd unit: what can be seen of them without an engine and without systemd running."""

import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib

import pytest
from conftest import ROOT, Process, binary, clean_environment, free_port, shoprelay

DOCKERFILE = (ROOT / "Dockerfile").read_text()
SYSTEMD = ROOT / "packaging" / "systemd"


def instructions():
    """Each instruction of the Dockerfile as (word, rest), stages apart."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    stages, last = [], None
    for line in filter(None, joined.splitlines()):
        word, rest = line.split(" ", 1)
        if word == "FROM":
            last = []
            stages.append(last)
        if last is not None:
            last.append((word, rest))
    return stages


def only(stage, word):
    [found] = [rest for each, rest in stage if each == word]
    return found


def test_hadolint_has_nothing_to_say_of_the_dockerfile():
    subprocess.run(["hadolint", ROOT / "Dockerfile"], check=True)


def test_shellcheck_has_nothing_to_say_of_any_script():
    scripts = [ROOT / "test.sh", ROOT / ".ci/run", ROOT / "tests/deploy.sh"]
    scripts += [*(ROOT / "packaging").glob("*.sh"), *(ROOT / "loadtest").glob("*.sh")]
    # A trap's function is called by nobody that can be seen.
    subprocess.run(["shellcheck", "--exclude=SC2329", *scripts], check=True)


def test_the_container_has_a_number_for_a_user_a_signal_that_drains_and_a_check_by_the_binary():
    _, stage = instructions()
    assert re.fullmatch(r"\d+:\d+", only(stage, "USER")) and not only(stage, "USER").startswith("0")
    assert only(stage, "STOPSIGNAL") == "SIGTERM"
    [entry] = json.loads(only(stage, "ENTRYPOINT"))
    assert json.loads(only(stage, "CMD")) == ["serve"]
    check = json.loads(only(stage, "HEALTHCHECK").split(" CMD ")[1])
    assert check[0] == entry and check[1] in shoprelay("--help").stdout
    assert any(word == "COPY" and rest.split()[-1] == entry for word, rest in stage)


def test_the_images_are_pinned_and_of_one_debian():
    images = dict(re.findall(r"^ARG (\w+)=(\S+)$", DOCKERFILE, re.MULTILINE))
    rust, debian = re.fullmatch(r"rust:(\d+\.\d+\.\d+)-(\w+)", images["BUILD_IMAGE"]).groups()
    assert images["RUN_IMAGE"].startswith("gcr.io/distroless/cc-debian12") and debian == "bookworm"
    least = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["rust-version"]
    assert [int(part) for part in rust.split(".")[:2]] >= [int(part) for part in least.split(".")]


def test_the_settings_of_the_image_are_refused_until_somebody_says_who_may_come_in():
    _, stage = instructions()
    variables = dict(pair.split("=", 1) for pair in shlex.split(only(stage, "ENV")))
    ports = {address.rsplit(":", 1)[1] for name, address in variables.items() if name.endswith("_LISTEN")}
    assert ports == set(only(stage, "EXPOSE").split())
    assert "anyone could log in" in shoprelay("check", **variables).stdout
    opened = shoprelay("check", SHOPRELAY_INSECURE="true", **variables)
    assert opened.returncode == 0, opened.stdout
    assert "warning:" not in opened.stdout


@pytest.fixture
def copied(tmp_path):
    """What the Dockerfile copies into the stage that builds, and .dockerignore lets it see."""
    build, _ = instructions()
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources = [word for instruction, rest in build if instruction == "COPY" for word in rest.split()[:-1]]
    assert set(sources) == allowed
    for source in sources:
        target = tmp_path / source
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, target)
    return tmp_path


def test_what_the_dockerfile_copies_is_all_that_the_build_needs(copied):
    command = [
        "cargo",
        "metadata",
        "--locked",
        "--offline",
        "--format-version=1",
        "--manifest-path",
        copied / "Cargo.toml",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    # What is there for tests and fuzzing alone is not built into the image.
    for source in (path for path in copied.glob("src/**/*.rs") if "properties" not in str(path)):
        for path in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', source.read_text()):
            target = (source.parent / path).resolve()
            assert target.exists() or "tests" in source.name, (
                f"{source} needs {path}, which the image is built without"
            )


def test_the_binary_starts_where_there_is_nothing_but_its_libraries(tmp_path):
    """As in the image: no shell, no /etc, no /tmp; the C library and what belongs to it."""
    libraries = re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", binary()], capture_output=True, text=True).stdout)
    names = {re.sub(r"\.so.*", "", os.path.basename(path)) for path in libraries}
    assert names <= {"libc", "libm", "libgcc_s", "ld-linux-x86-64", "libdl", "libpthread", "librt"}, (
        "not in distroless/cc"
    )
    for path in libraries:
        target = tmp_path / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    shutil.copy(binary(), tmp_path / "shoprelay")
    (tmp_path / "data").mkdir()
    enter = ["unshare", "--map-root-user", "--root", str(tmp_path), "--wd", "/"]
    address = f"127.0.0.1:{free_port()}"
    variables = {
        "SHOPRELAY_METRICS_LISTEN": address,
        "SHOPRELAY_LISTEN": "127.0.0.1:0",
        "SHOPRELAY_API_LISTEN": "none",
    }
    environment = clean_environment(**variables, SHOPRELAY_STORE="embedded:/data", SHOPRELAY_DRAIN_WINDOW="0s")
    node = Process(*enter, "/shoprelay", "serve", env=environment)
    try:
        node.await_that("the node to be ready", lambda: '"ready"' in node.output())
        health = subprocess.run(
            [*enter, "/shoprelay", "health", "--ready"], env=environment, capture_output=True, text=True
        )
        assert (health.returncode, health.stdout) == (0, "ready\n"), health.stderr
    finally:
        assert node.stop() == 0, node.output()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir() and not path.name.startswith("lib")) == [
        "data"
    ]


@pytest.fixture
def installed(tmp_path):
    """Unit and settings as on a machine, with every folder in one of ours."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "etc" / "token.secret").write_text("0123456789abcdef0123456789abcdef")
    places = {
        "/usr/local/bin/shoprelay": os.path.abspath(binary()),
        "/etc/shoprelay": str(tmp_path / "etc"),
        "/var/lib/shoprelay": str(tmp_path / "lib"),
    }
    for name in ("shoprelay.service", "shoprelay.toml"):
        text = (SYSTEMD / name).read_text()
        for place, ours in places.items():
            text = text.replace(place, ours)
        (tmp_path / ("etc" if name.endswith("toml") else ".") / name).write_text(text)
    return tmp_path


def unit():
    """The unit's settings; of those that are given twice, all."""
    lines = [
        line.split("=", 1)
        for line in (SYSTEMD / "shoprelay.service").read_text().splitlines()
        if "=" in line and line[0] != "#"
    ]
    found = {}
    for key, value in lines:
        found.setdefault(key, []).append(value)
    return found


def test_systemd_takes_the_unit_and_finds_it_shut_in(installed):
    verified = subprocess.run(
        ["systemd-analyze", "verify", installed / "shoprelay.service"], capture_output=True, text=True
    )
    assert verified.returncode == 0 and not verified.stderr, verified.stderr
    subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", installed / "shoprelay.service"],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def test_the_unit_waits_for_the_drain_and_the_user_is_made():
    settings = tomllib.loads((SYSTEMD / "shoprelay.toml").read_text())
    assert int(unit()["TimeoutStopSec"][0]) >= int(settings["drain_window"].removesuffix("s")) + 15
    assert f"u {unit()['User'][0]} - " in (SYSTEMD / "shoprelay.sysusers").read_text()


def test_the_unit_starts_a_node_with_the_sample_settings_and_stops_it(installed):
    text = (installed / "shoprelay.service").read_text()
    commands = dict(re.findall(r"^(ExecStart(?:Pre)?)=(.*)$", text, re.MULTILINE))
    checked = subprocess.run(
        shlex.split(commands["ExecStartPre"]), env=clean_environment(), capture_output=True, text=True
    )
    assert checked.returncode == 0 and "warning:" not in checked.stdout, checked.stdout
    # The ports of the sample may be taken here.
    free = {f"SHOPRELAY_{name}": "127.0.0.1:0" for name in ("LISTEN", "API_LISTEN", "METRICS_LISTEN")}
    node = Process(*shlex.split(commands["ExecStart"]), env=clean_environment(**free, SHOPRELAY_DRAIN_WINDOW="0s"))
    node.await_that("the node to be ready", lambda: '"ready"' in node.output())
    assert list((installed / "lib").iterdir())
    assert node.stop() == 0, node.output()


def test_every_setting_that_the_sample_only_names_is_one(installed):
    """What stands behind a # in it, too."""
    sample = installed / "etc" / "shoprelay.toml"
    (installed / "etc" / "api-keys.toml").write_text(
        '[[keys]]\nname = "a"\nkey = "0123456789abcdef"\nshops = ["*"]\nscopes = ["read"]\n'
    )
    lines = []
    for line in sample.read_text().splitlines():
        offered = re.fullmatch(r"# ((\w+) = .*)", line)
        if offered:
            lines = [kept for kept in lines if not kept.startswith(f"{offered[2]} =")]
            line = offered[1]
        elif any(line.startswith(f"{kept.split(' = ')[0]} = ") for kept in lines if " = " in kept):
            continue
        lines.append(line)
    sample.write_text("\n".join(lines))
    checked = shoprelay("check", "--config", str(sample))
    assert checked.returncode == 0, sample.read_text() + checked.stdout
