"""Facts from Slurm: the job of this process, and the end of other jobs."""

import os
import re
import subprocess
from functools import cache


def job_id() -> str | None:
    """The job of this process; None outside a job."""
    return os.environ.get("SLURM_JOB_ID")


def node_name() -> str | None:
    """Slurm's name of this machine; None outside a job."""
    return os.environ.get("SLURMD_NODENAME")


@cache
def ending(job: str) -> tuple[str | None, str | None]:
    """(state, node) of a job that has ended, such as ("TIMEOUT", "gpu07"); None for what is unknown.
    The controller forgets a job minutes after its end (MinJobAge). Accounting, if there is any, does not."""
    # A command of Slurm can hang if the controller is down or there is no accounting.
    job_text = output_of("scontrol", "show", "job", "--oneliner", job, timeout_s=10)
    if state := re.search(r"\bJobState=(\w+)", job_text):
        node = re.search(r"\bNodeList=(\S+)", job_text)
        return state[1], node[1] if node and node[1] != "(null)" else None
    columns = ("--allocations", "--noheader", "--parsable2", "--format", "State,NodeList")
    rows = output_of("sacct", "--jobs", job, *columns, timeout_s=10)
    state, _, node = rows.partition("\n")[0].partition("|")
    return (state.split() or [None])[0], node if node and node != "None assigned" else None


def output_of(*command: str, timeout_s: float | None = None) -> str:
    """The standard output of a command; "" if it fails."""
    try:
        process = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=timeout_s)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return process.stdout if process.returncode == 0 else ""
