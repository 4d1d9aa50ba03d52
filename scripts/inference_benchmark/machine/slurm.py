"""What Slurm says of jobs: of the one that this process is in, and of others that have ended."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from functools import cache

#: Seconds to wait for an answer: a controller that is down, or accounting that is not there, gives none.
_PATIENCE_S = 10


def job_id(environ: Mapping[str, str] = os.environ) -> str | None:
    """The job that this process is in; None outside of one."""
    return environ.get("SLURM_JOB_ID")


def node_name(environ: Mapping[str, str] = os.environ) -> str | None:
    """What Slurm calls this machine; None outside of a job."""
    return environ.get("SLURMD_NODENAME")


@cache
def ending(job: str) -> tuple[str | None, str | None]:
    """(state, node) of a job that has ended, such as ("TIMEOUT", "gpu07"); None for what is not known any more.

    The controller forgets a job minutes after its end (MinJobAge); accounting, where there is any, does not.
    """
    told = _answer("scontrol", "show", "job", "--oneliner", job)
    if state := re.search(r"\bJobState=(\w+)", told):
        node = re.search(r"\bNodeList=(\S+)", told)
        return state[1], node[1] if node and node[1] != "(null)" else None
    told = _answer("sacct", "--jobs", job, "--allocations", "--noheader", "--parsable2", "--format", "State,NodeList")
    state, _, node = told.partition("\n")[0].partition("|")
    return (state.split() or [None])[0], node if node and node != "None assigned" else None


def _answer(*command: str) -> str:
    """What a command prints; "" where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
