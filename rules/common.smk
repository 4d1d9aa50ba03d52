# What all rules use: the configuration as PLAN (scripts/inference_benchmark/experiment/plan.py), and helpers.

import atexit
import gc
import os
import re
import signal
import sys
from pathlib import Path
from subprocess import CalledProcessError

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

# With it, no script would find the library beside it.
os.environ.pop("PYTHONSAFEPATH", None)
os.environ.update(
    # Jobs run with the Python that runs Snakemake, in an activated environment or not.
    PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    # Workers may be forked from a process that belongs to this one: importing takes longer than many a cell.
    INFERENCE_BENCHMARK_RUN=str(os.getpid()),
    # What jobs print and read is UTF-8, whatever the locale.
    PYTHONUTF8="1",
)
sys.path.insert(0, str((CODE / "scripts").absolute()))
IS_MODULE = not workflow.modifier.is_main_snakefile()
if IS_MODULE and workflow.modifier.modify_path("results/x") != "results/x":
    raise WorkflowError("module: prefix and replace_prefix are not supported; results go to results/MACHINE")

from inference_benchmark.experiment.config import load
from inference_benchmark.experiment.config_errors import ConfigError
from inference_benchmark.experiment.config_file import has_keys
from inference_benchmark.experiment.freshness import date_back, date_derived_files, date_future_files, not_files
from inference_benchmark.experiment.outputs import (
    across_files,
    chart_files,
    charts_of,
    comparison_files,
    derived,
    overall,
    thread_trial,
)
from inference_benchmark.files import remove_private_folder, set_aside
from inference_benchmark.records.attempts import AttemptLog
from inference_benchmark.records.record_file import derived_from_deleted, of_other_settings
from inference_benchmark.render.progress import ProgressHandler, attach_progress

# The configuration of the working directory, else the one of the code. Without any, and in a module for which the other
# workflow has none, all is as the schema has it.
CONFIG = next(filter(Path.exists, (Path("config.yaml"), CODE / "config.yaml")), None)
try:
    HAS_CONFIG = not IS_MODULE and CONFIG is not None and has_keys(CONFIG)
except ConfigError as error:
    raise WorkflowError("the configuration cannot be used:", *error.problems) from None
if HAS_CONFIG:

    configfile: str(CONFIG)


SCHEMA = yaml.load((CODE / "config.schema.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader)
try:
    PLAN = load(config, SCHEMA, files=[Path(path) for path in workflow.configfiles if not IS_MODULE], code=CODE)
except ConfigError as error:
    raise WorkflowError("the configuration cannot be used:", *error.problems) from None

ATTEMPTS = AttemptLog()


include: "undocumented.smk"


# The records of further rounds, by machine, where it was decided before which there are.
DECIDED = {}


def further_records(wildcards):
    """The records of rounds beyond those of the whole grid.

    A decision that is up to date is no part of the workflow: with a checkpoint in it, all is planned twice.
    """
    machine = wildcards["machine"]
    if PLAN.any_machine.most_rounds is None:
        return []
    if machine in DECIDED and not is_forced():
        return DECIDED[machine]
    checkpoints.rounds.get(machine=machine)
    return PLAN.further_records(machine)


def all_further_records(wildcards):
    """The same of all machines."""
    return [path for machine in PLAN.machines for path in further_records({"machine": machine})]


def rename(path, why):
    """Rename a record, so that its cell is measured again."""
    set_aside(Path(path))
    logger.info(f"{path} {why}; it is renamed and the cell is measured again")


def refuse_other_than_files(paths):
    if problems := not_files(paths):
        raise WorkflowError("records cannot be read:", *problems)


def cannot_write(error, outdated):
    """End the run because a file cannot be written. A dry run goes on with these outdated files planned: it writes no
    files but those of Snakemake."""
    path = error.filename or next(iter(outdated), "results")  # os.utime names no file
    problem = f"{path}: {error.strerror or error}, and it is out of date or missing"
    if not is_dry_run() or not os.access(".snakemake", os.W_OK):
        raise WorkflowError(f"{problem}; work in a folder that can be written (snakemake --directory)") from None
    logger.warning(problem)
    plan_again(outdated)
    plan_the_unwritable()


def interrupt(*_):
    """As Ctrl-C does where the terminal was closed: this process and its jobs, which are in its process group."""
    os.killpg(os.getpgrp(), signal.SIGINT)


# Servers of workers and notes of jobs are in it; also of a job on another machine, which Snakemake runs in turn.
atexit.register(remove_private_folder, f"-{os.getpid()}")

if workflow.is_main_process:
    refuse_other_than_files((*PLAN.cells, *PLAN.studies))
    orphans = derived_from_deleted((*PLAN.cells, *PLAN.requested_studies))
    try:
        for path in orphans:
            rename(path, "was derived from a record that was deleted")
    except OSError as error:
        cannot_write(error, orphans)
    inputs = [*expand("results/{machine}", machine=PLAN.machines), *PLAN.any_machine.baselines.values(), *PLAN.history]
    inputs += [*workflow.configfiles, *(CODE / folder for folder in ("scripts", "rules", "report"))]
    if problems := date_future_files(inputs):
        raise WorkflowError("files cannot be used:", *problems)
    DECIDED, stale = date_derived_files(PLAN.experiments)
    for paths in DECIDED.values():
        refuse_other_than_files(paths)
    # What an up-to-date summary was made of is of today's settings. Of other records Snakemake may have no parameters.
    summaries = {machine: f"results/{machine}/summary.csv" for machine in PLAN.machines}
    unknown = [name for name, path in summaries.items() if path in stale or not os.path.exists(path)]
    plan_again(of_other_settings(PLAN.possible_subjects(unknown)))
    try:
        date_back(stale)
        PLAN.save()
    except OSError as error:
        cannot_write(error, stale)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, interrupt)  # but under nohup
    in_place = not IS_MODULE and sys.stderr.isatty()
    progress = ProgressHandler(PLAN, ATTEMPTS, run_mode, retries, unfinished_outputs, in_place=in_place)
    attach_progress(logger, progress, not IS_MODULE, is_local)


# What was made so far lasts as long as the process, and so does most of what Snakemake makes of it. Garbage collection
# would go through all of it, again and again.
gc.freeze()
gc.set_threshold(100_000)


wildcard_constraints:
    machine="|".join(map(re.escape, PLAN.machines)),
    column=PLAN.columns,
    model=r"[^/]+",
    batch=r"\d+(\.round-\d+)?",
    baseline="|".join(map(re.escape, PLAN.any_machine.baselines)) or "none",
    environment=r"[^/]+",


# The packages of the library, each after those that it imports, without those that measure.
PACKAGES = ("analysis", "machine", "models", "engines", "results", "experiment", "records", "compare", "render")


def code(script, last):
    """A script, every file of the library up to this package, and the rules: an input of rules that only read.

    A rule that measures must not have them, or an edit would measure every cell again.
    """
    library = CODE / "scripts/inference_benchmark"
    packages = PACKAGES[: PACKAGES.index(last) + 1]
    parts = [library.glob("*.py"), *(library.glob(f"{name}/*.py") for name in packages), CODE.glob("rules/*.smk")]
    return [str(CODE / "scripts" / script), *(str(file) for part in parts for file in sorted(part))]


def thread_trials(machines):
    """What was tried with fewer threads. No input of the report: a trial is made on request, and never again by itself."""
    return list(filter(os.path.exists, map(thread_trial, machines)))


def rename_outdated_records():
    """After a failed run. Snakemake restores the earlier record of a cell that failed, and would take it for a record of
    today's settings in the next run."""
    for path in ATTEMPTS.outdated():
        rename(path, "has other settings than the configuration, and measuring the cell failed")


def show_what_there_is():
    """After a run in which jobs failed: tables and report of the rest, in a process of its own, as rule preview."""
    if not progress.tally.failures:  # interrupted
        return
    try:
        lines = shell(PREVIEW, params=rules.preview.params, log=rules.preview.log, read=True).splitlines()
        logger.info("\n".join(line for line in lines if line.startswith("Preview: ")))
    except CalledProcessError:
        logger.error(f"tables and report of the finished cells could not be made, see {rules.preview.log}")


def all_comparisons(wildcards):
    """The comparisons with every baseline, and of environments, as Markdown."""
    comparisons = comparison_files(PLAN.any_machine, ("md",)) + across_files(PLAN.any_machine, ("md",))
    if not comparisons:
        raise WorkflowError("baselines: names nothing to compare with; add a CSV of figures or a folder of records")
    return expand(comparisons, machine=PLAN.machines)


def refuse_without_weights(outputs):
    """End the run where a job with one of these outputs needs weights that are gone. To read records takes none."""
    if problems := () if workflow.touch else PLAN.without_weights(outputs):
        for problem in problems:
            logger.error(problem)
        sys.exit(1)


def refuse_too_few_slots(outputs):
    """End the run where a job is measured on more GPUs than jobs may use. Snakemake would say that jobs are connected."""
    slots, gpus = gpu_slots(), PLAN.most_gpus(outputs)
    if is_local() and slots is not None and gpus > slots:
        logger.error(f"cells are measured on {gpus} GPUs, and jobs may use {slots}; run with --resources gpu={gpus}")
        sys.exit(1)


def make_environments(outputs):
    """Make the environments that the jobs with these outputs need. If that fails, the run ends with one line instead of
    an error of Snakemake with a place in the rules."""
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
