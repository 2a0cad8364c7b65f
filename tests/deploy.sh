#!/usr/bin/env bash
# What a deployment is made of, tested: chart, container, alerts, dashboard, systemd unit, load tests.
# Installs what it needs, on Debian or Ubuntu; its arguments are pytest's.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=()
needs() { # command, package
  command -v "$1" >/dev/null || packages+=("$2")
}
needs curl curl
needs openssl openssl
needs prometheus prometheus
needs promtool prometheus
needs python3 python3
needs redis-cli redis-tools
needs redis-server redis-server
needs systemd-analyze systemd
python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
if [ ${#packages[@]} -gt 0 ]; then
  sudo=""
  [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

# A new list of packages gets a new environment; an old one is left where it is.
wanted=$(sha256sum tests/deploy/requirements.txt | cut -c1-12)
build=$(realpath -m "${CARGO_TARGET_DIR:-target}")
venv=$build/deploy-venv-$wanted
if [ ! -e "$venv/complete" ]; then
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/deploy/requirements.txt
  touch "$venv/complete"
fi

cargo build --quiet
export SHOPRELAY_BINARY=$build/debug/shoprelay
export PATH="$venv/bin:$PATH"
# The package with the operator's schemas brings a plugin of its own.
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
exec "$venv/bin/pytest" tests/deploy -p no:cacheprovider "$@"
