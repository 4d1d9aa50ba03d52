# Wiring for all rules: from the configuration to PLAN, in which the rules look up what they measure and make. What it
# says of cells, studies and jobs is in scripts/inference_benchmark/experiment/plan.py.

import gc
import os
import re
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.settings.types import DeploymentMethod

# The folder of the code. Where it is the working directory too, paths stay relative, and the same wherever it lies.
CODE = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parent
if not CODE.is_dir():
    raise WorkflowError(f"inference-benchmark is used from {CODE}; clone it and name the Snakefile of the clone")
if CODE.samefile(os.curdir):
    CODE = Path()

os.environ.update(
    # Jobs run with the Python that runs Snakemake, in an activated environment or not.
    PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    # Workers may be forked from a process that belongs to this one: importing takes longer than many a cell.
    INFERENCE_BENCHMARK_RUN=str(os.getpid()),
)
sys.path.insert(0, str((CODE / "scripts").absolute()))
# A module of another workflow leaves that workflow's process as it is.
IS_MODULE = not workflow.modifier.is_main_snakefile()
if not IS_MODULE:
    # Snakemake imports pandas, a fifth of its whole start, to ask whether a parameter is a data frame. None is.
    sys.modules.setdefault("pandas", None)
elif workflow.modifier.modify_path("results/x") != "results/x":
    raise WorkflowError("module: prefix and replace_prefix are not supported; results go to results/MACHINE")

from inference_benchmark.experiment.config import load
from inference_benchmark.experiment.config_errors import ConfigError
from inference_benchmark.experiment.config_file import has_keys
from inference_benchmark.experiment.freshness import date_derived_files, not_files
from inference_benchmark.experiment.outputs import (
    across_files,
    chart_files,
    charts_of,
    comparison_files,
    derived,
    overall,
)
from inference_benchmark.files import files_beside, set_aside
from inference_benchmark.records.attempts import AttemptLog
from inference_benchmark.records.other_cells import resting_on_lost
from inference_benchmark.render.progress import MEASURING_RULES, attach_progress

# The configuration of the working directory, else the one of the code. Without any, all is as the schema has it.
CONFIG = next(filter(Path.exists, (Path("config.yaml"), CODE / "config.yaml")), None)
try:
    HAS_CONFIG = CONFIG is not None and has_keys(CONFIG)
except ConfigError as error:
    raise WorkflowError("the configuration cannot be used:", *error.problems) from None
if HAS_CONFIG:

    configfile: str(CONFIG)


SCHEMA = yaml.load((CODE / "config.schema.yaml").read_text(), yaml.CSafeLoader)
try:
    PLAN = load(config, SCHEMA, files=[Path(path) for path in workflow.configfiles if not IS_MODULE], code=CODE)
except ConfigError as error:
    raise WorkflowError("the configuration cannot be used:", *error.problems) from None

# Under this name profiles/slurm puts cells together that share a job.
workflow.parent_groupids.update(dict.fromkeys(PLAN.job_names.values(), "cells"))

if workflow.is_main_process:
    if problems := not_files((*PLAN.cells, *PLAN.studies)):
        raise WorkflowError("records cannot be read:", *problems)
    for path in resting_on_lost(PLAN.cells):
        logger.info(f"{path} rests on a record that is gone: it is set aside, and the cell is tried")
        set_aside(Path(path))
    date_derived_files(PLAN.experiments)
    PLAN.save()
    attach_progress(
        logger,
        {**PLAN.cells, **PLAN.studies},
        AttemptLog(forget_backup=lambda path: workflow.persistence.cleanup_backup(path)),
        runs_jobs=lambda: not (workflow.dryrun or workflow.touch),
        only_plans=lambda: workflow.dryrun,
        retries=lambda: workflow.execution_settings.retries,
        rules=[workflow.modifier.modify_rulename(name) for name in MEASURING_RULES],
        terse=not IS_MODULE,
    )

if not IS_MODULE:
    # What there is by now stays. Not to look at it again and again for garbage saves a tenth of a start with many
    # cells.
    gc.freeze()


wildcard_constraints:
    machine="|".join(map(re.escape, PLAN.machines)),
    # A wildcard for each part of it would cost a twentieth of a start with many cells.
    column=PLAN.columns,
    model=r"[^/]+",
    batch=r"\d+(\.round-\d+)?",
    baseline="|".join(map(re.escape, PLAN.any_machine.baselines)) or "none",
    environment=r"[^/]+",


def code(script, *packages):
    """A script, every file of these packages of the library, and the rules: an input of rules that only read.

    A rule that measures must not have them, or an edit would measure every cell again.
    """
    library = CODE / "scripts/inference_benchmark"
    parts = [library.glob("*.py"), *(library.glob(f"{name}/*.py") for name in packages), CODE.glob("rules/*.smk")]
    return [str(CODE / "scripts" / script), *(str(file) for part in parts for file in sorted(part))]


def all_records(wildcards):
    """The records of all cells. Tells Snakemake which files there are: it would list the folder of the first record, and
    ask for each file of the others by itself."""
    known = workflow.iocache.exists_local
    for folder, paths in files_beside(PLAN.cells).items():
        known.update(dict.fromkeys(paths, True))
        known.has_inventory.add(folder)
    return list(PLAN.cells)


def cell_priority_and_keep_going(wildcards):
    """The priority of a cell. In a job of a cluster, lets the cells after one that fails be measured all the same."""
    if workflow.remote_exec:
        # Snakemake does not hand its keep-going on to jobs, and reads it after this.
        workflow.execution_settings.keep_going = True
    return PLAN.priority(wildcards)


def all_comparisons(wildcards):
    """The comparisons with every baseline, and of environments, as Markdown."""
    comparisons = comparison_files(PLAN.any_machine, ("md",)) + across_files(PLAN.any_machine, ("md",))
    if not comparisons:
        raise WorkflowError("baselines: names nothing to compare with; add a CSV of figures or a folder of records")
    return expand(comparisons, machine=PLAN.machines)


def make_environments(outputs):
    """Make the environments that the jobs with these outputs measure in. Where that fails, the run ends with one line:
    for an error Snakemake would show where in the rules it was raised."""
    needed = PLAN.environments_of(outputs)
    by_conda = DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method  # the jobs' Python is another
    if needed and not workflow.touch and not by_conda:
        # Here, because it is not needed to read the rules.
        from inference_benchmark.measure import environments
        from inference_benchmark.measure.outcome import MeasurementError

        try:
            for name, lock in needed:
                environments.ensure(name, lock)
        except MeasurementError as error:
            logger.error(str(error))
            sys.exit(1)
        except KeyboardInterrupt:
            logger.error("interrupted while an environment was made; the next run makes it again")
            sys.exit(1)
