"""Whether derived files are up to date with the records and the configuration.

Snakemake judges by modification times and by its metadata in .snakemake. A clone, a copy or an unpacked archive has no
metadata and times in no order, and a changed setting would go unnoticed. So collect notes a digest of everything it
read. When Snakemake starts, the digest is compared and the modification times of derived files are set accordingly.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from inference_benchmark import files
from inference_benchmark.experiment import baselines
from inference_benchmark.experiment.experiment import Experiment
from inference_benchmark.experiment.outputs import derived, overall
from inference_benchmark.experiment.studies import possible_studies


def inputs_digest(experiment: Experiment) -> str:
    """A digest of the experiment and of the content of every record, study and baseline of it that exists."""
    digest = hashlib.sha256(experiment.to_json().encode())
    parts = chain(experiment.cells(), possible_studies(experiment))
    for path in chain((part.path for part in parts), baselines.files(experiment.baselines.values())):
        try:
            content = files.read(path)
        except OSError:
            continue
        digest.update(f"\0{path}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def not_files(paths: Iterable[str]) -> list[str]:
    """One message for each path of a record where something other than a file is, which nobody could read."""
    problems = []
    for path in paths:
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                problems.append(f"{path}: is not a file; remove it, or put the record there")
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
    return problems


def date_derived_files(experiments: Sequence[Experiment], metadata: Path = Path(".snakemake/metadata")) -> None:
    """Date derived files so that Snakemake makes them again if, and only if, their content is out of date.

    Where Snakemake has metadata (it has run here before), files whose content is up to date are left alone, so that
    changed code and templates are noticed.
    """
    has_metadata = metadata.is_dir() and any(metadata.iterdir())
    for experiment in experiments:
        _date_one(experiment, has_metadata)
    for path in map(Path, overall(experiments)):  # after what it is made from
        if path.exists() and not has_metadata:
            _date(path, None)


def _date_one(experiment: Experiment, has_metadata: bool) -> None:
    existing = [path for path in map(Path, derived(experiment)) if path.exists()]
    if not existing:
        return
    try:
        noted = files.read_json(Path("results", experiment.machine, "provenance.json"))["inputs_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        noted = None
    if noted != inputs_digest(experiment):
        times = (1, 1)
    elif not has_metadata:
        times = None  # now
    else:
        return
    for path in existing:
        _date(path, times)


def _date(path: Path, times: tuple[int, int] | None) -> None:
    with suppress(PermissionError):  # somebody else's results, only to be read
        os.utime(path, times)
