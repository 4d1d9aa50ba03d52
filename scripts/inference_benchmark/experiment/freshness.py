"""Whether derived files are made from the records and the configuration of now.

Snakemake judges by modification times and by what it remembers in .snakemake. A clone, a copy or an
unpacked archive has neither: its times are in no order, and a changed setting would go unnoticed. So
collect notes a digest of what it read, and when Snakemake starts the times are made to tell the truth.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from inference_benchmark import files
from inference_benchmark.experiment import baselines
from inference_benchmark.experiment.cells import Experiment
from inference_benchmark.experiment.outputs import derived, overall
from inference_benchmark.experiment.studies import possible_studies


def inputs_digest(experiment: Experiment) -> str:
    """A digest of the experiment and of every record, study and baseline of it that exists, by content."""
    digest = hashlib.sha256(experiment.to_json().encode())
    parts = chain(experiment.cells(), possible_studies(experiment))
    for path in chain((part.path for part in parts), baselines.files(experiment.baselines.values())):
        try:
            content = files.read(Path(path))
        except OSError:
            continue
        digest.update(f"\0{path}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def settle(experiments: Sequence[Experiment], memory: Path = Path(".snakemake/metadata")) -> None:
    """Date derived files so that Snakemake makes them again if, and only if, their content is out of date.

    Where Snakemake has a memory of its own (it has run here before), files that are up to date by
    content are left alone, so that changed code and templates are noticed.
    """
    remembers = memory.is_dir() and any(memory.iterdir())
    for experiment in experiments:
        _settle_one(experiment, remembers)
    for path in map(Path, overall(experiments)):  # after what it is made from
        if path.exists() and not remembers:
            _date(path, None)


def _settle_one(experiment: Experiment, remembers: bool) -> None:
    made = [path for path in map(Path, derived(experiment)) if path.exists()]
    if not made:
        return
    try:
        noted = files.read_json(Path("results", experiment.machine, "provenance.json"))["inputs_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        noted = None
    if noted != inputs_digest(experiment):
        times = (1, 1)
    elif not remembers:
        times = None  # now
    else:
        return
    for path in made:
        _date(path, times)


def _date(path: Path, times: tuple[int, int] | None) -> None:
    with suppress(PermissionError):  # somebody else's results, to look at
        os.utime(path, times)
