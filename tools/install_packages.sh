#!/usr/bin/env bash
# Installs the Debian 12 packages that building (and, with --tests, testing) Millrace needs. Does nothing when all are there.
set -euo pipefail

packages=(g++ cmake ninja-build ccache pkg-config
  libfmt-dev libspdlog-dev nlohmann-json3-dev libcli11-dev libboost1.81-dev
  libdnnl-dev libpcre2-dev libicu-dev libxxhash-dev zlib1g-dev
  libssl-dev libpng-dev libjpeg62-turbo-dev libxlsxwriter-dev)
if [ "${1:-}" = "--tests" ]; then
  packages+=(libgtest-dev libgmock-dev libbenchmark-dev libsentencepiece-dev clang-format python3 python3-jinja2 chromium)
fi

missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null)" = "ii " ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

sudo=""
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "These packages are missing: ${missing[*]}. Install them as root, or install sudo." >&2; exit 1; }
  sudo="sudo"
fi
echo "Installing ${#missing[@]} Debian packages: ${missing[*]}"
$sudo apt-get update -qq || echo "apt-get update failed; trying with the package lists at hand" >&2
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
