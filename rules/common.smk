# The only Python among the rules: the configuration becomes the cells that the rules are about.

import gc
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

# Jobs run with the Python that runs Snakemake, in an activated environment or not.
os.environ.update(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
# Snakemake imports pandas, a fifth of its whole start, to ask whether a parameter is a data frame. None is.
sys.modules.setdefault("pandas", None)
sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))

from inference_benchmark.records.attempts import AttemptLog
from inference_benchmark.experiment.cells import Watch, record_path
from inference_benchmark.experiment.config import ConfigError, load, slurm_requests
from inference_benchmark.experiment.freshness import date_derived_files
from inference_benchmark.experiment.outputs import chart_files, charts_of, comparison_files, derived, overall
from inference_benchmark.render.progress import attach_progress
from inference_benchmark.experiment.studies import possible_studies, requested_studies

SCHEMA = yaml.load(Path(workflow.basedir, "config.schema.yaml").read_text(), yaml.CSafeLoader)
try:
    EXPERIMENTS = load(config, SCHEMA, files=[Path(path) for path in workflow.configfiles])
except ConfigError as error:
    raise WorkflowError("the configuration cannot be used:", *error.problems) from None

# By machine; they differ in nothing else, so that one stands for all where paths are made.
BY_MACHINE = {experiment.machine: experiment for experiment in EXPERIMENTS}
ANY_MACHINE = replace(EXPERIMENTS[0], machine="{machine}")
CELLS = {cell.path: cell for experiment in EXPERIMENTS for cell in experiment.cells()}
RECORDS = list(CELLS)
STUDIES = [study.path for experiment in EXPERIMENTS for study in requested_studies(experiment)]
POSSIBLE_STUDIES = {study.path: study for experiment in EXPERIMENTS for study in possible_studies(experiment)}
ORDER = {path: len(RECORDS) - index for index, path in enumerate(RECORDS)}
# How a measurement is watched. Snakemake compares only values of built-in types: a changed time-out measures nothing
# again.
WATCH = Watch(
    timeout_s=config["watch"]["timeout_seconds"],
    sample_hz=config["watch"]["sample_hz"],
    exclusive=config["watch"]["exclusive"],
)
# What jobs ask Slurm for, by machine; empty where none is named.
SLURM = slurm_requests(config, SCHEMA)
# The cells that share a job of Slurm, so many as come one after the other in the configuration.
JOBS = {
    cell.path: f"{experiment.machine}-{index // SLURM[experiment.machine]['cells_per_job']}"
    for experiment in EXPERIMENTS
    if experiment.machine in SLURM and SLURM[experiment.machine]["cells_per_job"] > 1
    for index, cell in enumerate(experiment.cells())
}
# Under this name profiles/slurm lets them be put together.
workflow.parent_groupids.update(dict.fromkeys(JOBS.values(), "cells"))

if workflow.is_main_process:
    date_derived_files(EXPERIMENTS)
    for experiment in EXPERIMENTS:
        experiment.save()
    attach_progress(
        logger,
        {**CELLS, **POSSIBLE_STUDIES},
        AttemptLog(forget_backup=lambda path: workflow.persistence.cleanup_backup(path)),
        retries=lambda: workflow.execution_settings.retries,
        terse=not workflow.dryrun,
    )

# What there is by now stays. Not to look at it again and again for garbage saves a tenth of a start with many cells.
gc.freeze()


wildcard_constraints:
    machine="|".join(map(re.escape, BY_MACHINE)),
    model=r"[^/]+",
    workload=r"prompt\d+-new\d+",
    engine=r"[^/]+",
    precision=r"[^/]+",
    batch_size=r"\d+",
    baseline="|".join(map(re.escape, ANY_MACHINE.baselines)) or "none",


def library(*packages):
    """Every source file of these packages of the library, as an input of what only reads.

    What measures must not have it, or an edit would measure every cell again.
    """
    folder = Path("scripts/inference_benchmark")
    return sorted(
        map(str, (*folder.glob("*.py"), *(file for name in packages for file in folder.glob(f"{name}/*.py"))))
    )


def records_of_machine(wildcards):
    """The records of all cells of a machine."""
    return [cell.path for cell in BY_MACHINE[wildcards.machine].cells()]


def studies_of_machine(wildcards):
    """The studies that a machine's experiment asks for."""
    return [study.path for study in requested_studies(BY_MACHINE[wildcards.machine])]


def cell_json(wildcards):
    """The whole cell as one text: a change of any setting is a changed parameter."""
    return CELLS[record_path(**wildcards)].to_json()


def study_json(wildcards, output):
    """What is asked, as one text, by the file that the answer goes to."""
    return POSSIBLE_STUDIES[output[0]].to_json()


def cells_of_a_job(wildcards):
    """A name that cells have in common that share a job of Slurm; None where each has its own."""
    return JOBS.get(record_path(**wildcards))


def cell_priority(wildcards):
    """Higher for cells that come earlier in the configuration."""
    if workflow.remote_exec:
        # Snakemake does not hand its keep-going on to jobs, and reads it after this.
        workflow.execution_settings.keep_going = True
    return ORDER[record_path(**wildcards)]


def baseline_path(wildcards):
    """What the configuration calls so, a file or a folder."""
    return ANY_MACHINE.baselines[wildcards.baseline]


def charts_folder(wildcards, input, output):
    """Where the charts are or go, whichever the rule has to do with them."""
    return str(Path((output or input.charts)[0]).parent)


def all_comparisons(wildcards):
    """The comparisons with every baseline, as Markdown."""
    if not ANY_MACHINE.baselines:
        raise WorkflowError("baselines: names nothing to compare with; add a CSV of figures or a folder of records")
    return expand(comparison_files(ANY_MACHINE, ("md",)), machine=BY_MACHINE)


def experiment_json(wildcards):
    """The whole experiment of a machine as one text: a change of any setting is a changed parameter."""
    return BY_MACHINE[wildcards.machine].to_json()


def experiment_file(wildcards):
    """The file with that text, from which the cells follow."""
    return str(BY_MACHINE[wildcards.machine].path)


def which_attempt(wildcards, attempt):
    """1 for a job that is not tried again."""
    return attempt


def one_gpu(wildcards):
    """1; 0 where Slurm is asked for the GPU by the name of a generic resource, and must not be twice."""
    return 0 if SLURM and SLURM[wildcards.machine]["gres"] else 1


def asked_of_slurm(key, per_attempt=False):
    """What a job of a machine asks Slurm for: the value of a key of machines.LABEL.slurm, nothing where it is null.

    per_attempt: as much again with each attempt, for jobs that time or memory has ended.
    """

    def value(wildcards, attempt):
        asked = SLURM[wildcards.machine][key]
        return asked * attempt if per_attempt else asked

    return value


def watch_of_machine(wildcards):
    """How a measurement is watched, and which device it has to be on."""
    return replace(WATCH, device_name=BY_MACHINE[wildcards.machine].device_name or "")


# What a job that takes a device asks for, besides the device itself, and how it is watched. Where no machine is named,
# there is nothing to find out for each job: with thousands of them, that takes time.
ON_A_NODE = {
    "slurm_partition": asked_of_slurm("partition"),
    "slurm_account": asked_of_slurm("account"),
    "gpu_model": asked_of_slurm("gpu_model"),
    "gres": asked_of_slurm("gres"),
    "constraint": asked_of_slurm("constraint"),
    "cpus_per_task": asked_of_slurm("cpus"),
    "mem_mb": asked_of_slurm("mem_mb", per_attempt=True),
    "runtime": asked_of_slurm("runtime_minutes", per_attempt=True),
}
WATCHED = watch_of_machine
if not SLURM:
    ON_A_NODE, WATCHED = {}, WATCH
