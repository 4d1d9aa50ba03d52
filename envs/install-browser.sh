#!/bin/sh
# What the browser tests need beside Python, on Debian and Ubuntu: Chromium, and rules of accessibility from npm.
set -e
cd "$(dirname "$0")/.."
packages=""
command -v chromium >/dev/null || packages="chromium fonts-dejavu-core"
command -v npm >/dev/null || packages="$packages npm"
if [ -n "$packages" ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    # shellcheck disable=SC2086
    apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages
  else
    echo "the browser tests need $packages; on Debian or Ubuntu: sudo apt-get install $packages" >&2
    exit 1
  fi
fi
npm ci --prefix tests/browser --silent --no-audit --no-fund
