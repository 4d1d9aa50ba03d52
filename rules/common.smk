# The only Python among the rules: the configuration becomes the cells that the rules are about.

import os
import re
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

# Jobs run with the Python that runs Snakemake, in an activated environment or not.
os.environ.update(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
# Snakemake imports pandas, a fifth of its whole start, to ask whether a parameter is a data frame. None is.
sys.modules.setdefault("pandas", None)
sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))

from inference_benchmark.cells import Watch, record_path
from inference_benchmark.config import ConfigError, load
from inference_benchmark.freshness import settle
from inference_benchmark.outputs import chart_files, comparison_files, derived
from inference_benchmark.progress import attach
from inference_benchmark.studies import possible_studies, studies

try:
    EXPERIMENT = load(
        config,
        yaml.load(Path(workflow.basedir, "config.schema.yaml").read_text(), yaml.CSafeLoader),
        files=[Path(path) for path in workflow.configfiles],
    )
except ConfigError as error:
    raise WorkflowError("the configuration cannot be used:", *error.problems) from None

WATCH = Watch(
    timeout_s=config["watch"]["timeout_seconds"],
    sample_hz=config["watch"]["sample_hz"],
    exclusive=config["watch"]["exclusive"],
)
CELLS = {cell.path: cell for cell in EXPERIMENT.cells()}
RECORDS = list(CELLS)
STUDIES = [study.path for study in studies(EXPERIMENT)]
POSSIBLE_STUDIES = {study.path: study for study in possible_studies(EXPERIMENT)}
ORDER = {path: len(RECORDS) - index for index, path in enumerate(RECORDS)}

if workflow.is_main_process:
    settle(EXPERIMENT)
    attach(logger, {**CELLS, **POSSIBLE_STUDIES}, terse=not workflow.dryrun)


wildcard_constraints:
    machine=re.escape(EXPERIMENT.machine),
    model=r"[^/]+",
    workload=r"prompt\d+-new\d+",
    engine=r"[^/]+",
    precision=r"[^/]+",
    batch_size=r"\d+",
    baseline="|".join(map(re.escape, EXPERIMENT.baselines)) or "none",


def cell_json(wildcards):
    """The whole cell as one text: a change of any setting is a changed parameter."""
    return CELLS[record_path(**wildcards)].to_json()


def study_json(wildcards, output):
    """What is asked, as one text, by the file that the answer goes to."""
    return POSSIBLE_STUDIES[output[0]].to_json()


def cell_priority(wildcards):
    """Higher for cells that come earlier in the configuration."""
    return ORDER[record_path(**wildcards)]


def baseline_path(wildcards):
    """What the configuration calls so, a file or a folder."""
    return EXPERIMENT.baselines[wildcards.baseline]


def charts_folder(wildcards, input, output):
    """Where the charts are or go, whichever the rule has to do with them."""
    return str(Path((output or input.charts)[0]).parent)


def all_comparisons(wildcards):
    """The comparisons with every baseline, as Markdown."""
    if not EXPERIMENT.baselines:
        raise WorkflowError("baselines: names nothing to compare with; add a CSV of figures or a folder of records")
    return comparison_files(EXPERIMENT, ("md",))


def experiment_json(wildcards):
    """The whole experiment as one text, from which its cells follow."""
    return EXPERIMENT.to_json()
