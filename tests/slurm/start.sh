#!/usr/bin/env bash
# Start a throw-away Slurm in folder $1, as root, on loopback only: munged, slurmctld, and a slurmd for each of two
# nodes, a1 with an "a100" and h1 with two "h200". The GPUs are device files that nothing opens; of CPUs and memory the
# nodes claim to have more than there is.
set -euo pipefail
base=$1
host=$(hostname -s)
me=$(id -un)
nodes="a1:a100:16818:1 h1:h200:16828:2"
cgroups=0 # memory limits that kill need cgroup v1, mounted to be written to
[ -w /sys/fs/cgroup/memory ] && [ -w /sys/fs/cgroup/freezer ] && cgroups=1

mkdir -p "$base"/{munge,state,log,run,dev}
chmod 755 "$base" "$base/munge"
(umask 077 && head -c 128 /dev/urandom >"$base/munge/munge.key")
munged --key-file="$base/munge/munge.key" --socket="$base/munge/munge.socket" --pid-file="$base/munge/munged.pid" \
  --seed-file="$base/munge/munged.seed" --log-file="$base/munge/munged.log"

{
  cat <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=$me
SlurmdUser=$me
AuthType=auth/munge
AuthInfo=socket=$base/munge/munge.socket
MpiDefault=none
ProctrackType=$([ $cgroups = 1 ] && echo proctrack/cgroup || echo proctrack/linuxproc)
TaskPlugin=$([ $cgroups = 1 ] && echo task/cgroup || echo task/none)
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SwitchType=switch/none
ReturnToService=2
StateSaveLocation=$base/state
SlurmdSpoolDir=$base/spool-%n
SlurmctldPidFile=$base/run/slurmctld.pid
SlurmdPidFile=$base/run/slurmd-%n.pid
SlurmctldLogFile=$base/log/slurmctld.log
SlurmdLogFile=$base/log/slurmd-%n.log
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=5,sched_min_interval=100000,batch_sched_delay=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$base/log/jobs.txt
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
$([ $cgroups = 1 ] || echo JobAcctGatherParams=UsePss,OverMemoryKill)
MinJobAge=300
KillWait=2
MailProg=/bin/true
SlurmdTimeout=30
SlurmdParameters=config_overrides
InactiveLimit=0
EnforcePartLimits=ALL
JobRequeue=0
CONF
  for node in $nodes; do
    IFS=: read -r name type port gpus <<<"$node"
    echo "NodeName=$name NodeHostname=$host NodeAddr=127.0.0.1 Port=$port CPUs=16 RealMemory=128000 Gres=gpu:$type:$gpus Feature=$type State=UNKNOWN"
  done
  echo "PartitionName=gpu Nodes=a1,h1 Default=YES MaxTime=1-00:00:00 DefMemPerCPU=100 State=UP"
} >"$base/slurm.conf"
for node in $nodes; do
  IFS=: read -r name type port gpus <<<"$node"
  for number in $(seq "$gpus"); do
    mknod "$base/dev/$name-$number" c 1 3 # only for a device does Slurm set CUDA_VISIBLE_DEVICES
    echo "NodeName=$name Name=gpu Type=$type File=$base/dev/$name-$number"
  done
done >"$base/gres.conf"
[ $cgroups = 0 ] || cat >"$base/cgroup.conf" <<CONF
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
CgroupAutomount=no
ConstrainRAMSpace=yes
ConstrainSwapSpace=no
ConstrainCores=no
ConstrainDevices=no
MinRAMSpace=10
CONF

# Snakemake's job steps start without SLURM_CONF and look in the usual place.
mkdir -p /etc/slurm
for file in slurm.conf gres.conf cgroup.conf; do
  if [ -f "$base/$file" ]; then ln -sfn "$base/$file" "/etc/slurm/$file"; fi
done
slurmctld -i
for node in $nodes; do
  name=${node%%:*}
  mkdir -p "$base/spool-$name"
  slurmd -N "$name"
done
for _ in $(seq 150); do
  [ "$(sinfo -h -N -t idle -o %N 2>/dev/null | sort -u | wc -l)" = 2 ] && exit 0
  sleep 0.2
done
tail -n 20 "$base"/log/*.log >&2
exit 1
