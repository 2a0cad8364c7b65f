#!/usr/bin/env bash
# Installs what the tests need, on Debian or Ubuntu, and runs them.
# SHOPRELAY_TEST_REDIS names another server than redis-server to run them on, such as a valkey-server.
set -euo pipefail
cd "$(dirname "$0")"

has_all() {
  command -v redis-server && command -v redis-cli && command -v curl && command -v openssl &&
    compgen -G "/usr/lib/*/faketime/libfaketimeMT.so.1"
} >/dev/null

if ! has_all; then
  sudo=""
  [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server redis-tools curl openssl faketime >/dev/null
fi

exec cargo test "$@"
