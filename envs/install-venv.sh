#!/bin/sh
# Debian and Ubuntu ship Python without its venv module: install it where that is allowed, else say how.
version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq && apt-get install -y -qq --no-install-recommends "python$version-venv"
else
  echo "$1 has no venv module; on Debian or Ubuntu: sudo apt-get install python$version-venv" >&2
  exit 1
fi
