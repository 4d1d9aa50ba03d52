#!/bin/sh
# What the cluster tests need: a Slurm of their own with its authentication, on Debian and Ubuntu, and Snakemake's
# plugins for it, in a folder apart so that no other test starts with them.
set -e
cd "$(dirname "$0")/.."
.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .venv/slurm -r envs/slurm.lock
command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge
else
  echo "the cluster tests need slurm-wlm and munge; on Debian or Ubuntu: sudo apt-get install slurm-wlm munge" >&2
  exit 1
fi
