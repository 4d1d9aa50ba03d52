#!/usr/bin/env bash
# Stop what start.sh has started in folder $1, and nothing else.
base=$1
stop() {
  pid=$(cat "$1" 2>/dev/null) && [ -d "/proc/$pid" ] || return 0
  case "$(cat "/proc/$pid/comm")" in slurmd | slurmctld | munged) kill -9 "$pid" ;; esac # there is nothing to be saved
}
scancel -u "$(id -un)" 2>/dev/null
sleep 0.5
for file in "$base"/run/slurmd-*.pid "$base/run/slurmctld.pid" "$base/munge/munged.pid"; do stop "$file"; done
for file in slurm.conf gres.conf cgroup.conf; do
  [ "$(readlink "/etc/slurm/$file")" = "$base/$file" ] && rm "/etc/slurm/$file"
done
for group in /sys/fs/cgroup/{memory,freezer,cpuset,devices,cpuacct}/slurm_*; do
  [ -d "$group" ] && find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
done
true
