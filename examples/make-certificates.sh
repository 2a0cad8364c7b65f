#!/usr/bin/env bash
# Makes certificates for shoprelay with openssl. Everything lies in one directory.
#
#   make-certificates.sh DIR ca                         the authorities: one for nodes, one for devices
#   make-certificates.sh DIR server NAME...             a node's certificate, for these DNS names and IP addresses
#   make-certificates.sh DIR device SHOP DEVICE [DAYS]  a device's certificate, DIR/devices/<serial>.pem and .key
#   make-certificates.sh DIR revoke FILE.pem            revokes a device's certificate, and writes the list anew
#   make-certificates.sh DIR crl                        writes the list anew; do so before it is 30 days old
set -euo pipefail
umask 077

usage() {
  sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

[ $# -ge 2 ] || usage
command -v openssl >/dev/null || { echo "openssl is needed: apt-get install openssl" >&2; exit 1; }
mkdir -p "$1"
cd "$1"
what=$2
shift 2

# What openssl has to know of the devices' authority. Version 2 of the list is the one with extensions.
config() {
  cat <<CONFIG
[ca]
default_ca = devices
[devices]
dir = .
database = clients/index.txt
serial = clients/serial
new_certs_dir = clients/issued
certificate = client-ca.pem
private_key = client-ca.key
default_md = sha256
default_days = 365
default_crl_days = 30
crlnumber = clients/crlnumber
crl_extensions = list
policy = any
unique_subject = no
copy_extensions = none
[any]
organizationName = optional
commonName = optional
[list]
authorityKeyIdentifier = keyid
[device]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectAltName = \${ENV::DEVICE_URI}
[req]
distinguished_name = none
[none]
CONFIG
}

# openssl, which is heard only when something is wrong.
quietly() {
  local said
  said=$(openssl "$@" 2>&1) || { echo "$said" >&2; exit 1; }
}

key() { quietly genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

authority() {
  key "$1.key"
  quietly req -x509 -new -key "$1.key" -out "$1.pem" -days 3650 -sha256 -subj "/CN=$2" \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign"
}

# A name as a URI has it: every byte but letters, digits and -._~ as %XX.
encoded() {
  printf %s "$1" | od -An -v -tx1 | tr -s ' \n' '\n' | while read -r byte; do
    case $byte in
      '') ;;
      2d|2e|5f|7e|3[0-9]|4[1-9a-f]|5[0-9a]|6[1-9a-f]|7[0-9a]) printf "\\x$byte" ;;
      *) printf %%%s "$byte" | tr a-f A-F ;;
    esac
  done
}

crl() {
  DEVICE_URI="" quietly ca -config <(config) -gencrl -out client-crl.pem.new
  mv client-crl.pem.new client-crl.pem
}

case $what in
  ca)
    [ ! -e client-ca.key ] || { echo "there are authorities here already" >&2; exit 1; }
    authority server-ca "shoprelay nodes"
    authority client-ca "shoprelay devices"
    mkdir -p clients/issued devices
    : >clients/index.txt
    echo 1000 >clients/serial
    echo 1000 >clients/crlnumber
    crl
    ;;
  server)
    [ $# -ge 1 ] || usage
    names=""
    for name in "$@"; do
      case $name in
        *[!0-9.]*) case $name in *:*) kind=IP ;; *) kind=DNS ;; esac ;;
        *) kind=IP ;;
      esac
      names="$names${names:+,}$kind:$name"
    done
    key server.key.new
    openssl req -new -key server.key.new -subj "/CN=$1" |
      quietly x509 -req -CA server-ca.pem -CAkey server-ca.key -CAcreateserial -days 90 -sha256 -out server.pem.new \
        -extfile <(printf "basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName=%s\n" "$names")
    # One after the other: a node takes them when they belong together.
    mv server.key.new server.key
    mv server.pem.new server.pem
    ;;
  device)
    [ $# -ge 2 ] || usage
    serial=$(cat clients/serial)
    key "devices/$serial.key"
    DEVICE_URI="URI:shoprelay://$(encoded "$1")/$(encoded "$2")"
    export DEVICE_URI
    openssl req -new -key "devices/$serial.key" -subj "/CN=device" |
      quietly ca -batch -notext -config <(config) -extensions device -days "${3:-365}" -in /dev/stdin \
        -out "devices/$serial.pem"
    echo "$PWD/devices/$serial.pem"
    ;;
  revoke)
    [ $# -eq 1 ] || usage
    DEVICE_URI="" quietly ca -config <(config) -revoke "$1"
    crl
    ;;
  crl) crl ;;
  *) usage ;;
esac
