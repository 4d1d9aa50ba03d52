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
        with suppress(OSError):
            content = files.read(path)
            digest.update(f"\0{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def not_files(paths: Iterable[str]) -> list[str]:
    """One line for each path of a record where something other than a file is."""
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
        existing = _existing(derived(experiment))
        if existing and not _is_up_to_date(experiment):
            _date(existing, (1, 1))
        elif not has_metadata:
            _date(existing, None)
    if not has_metadata:
        _date(_existing(overall(experiments)), None)  # after what it is made from


def _existing(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if os.path.exists(path)]


def _is_up_to_date(experiment: Experiment) -> bool:
    try:
        noted = files.read_json(Path("results", experiment.machine, "provenance.json"))["inputs_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return noted == inputs_digest(experiment)


def _date(paths: Iterable[str], times: tuple[int, int] | None) -> None:
    for path in paths:
        with suppress(PermissionError):  # somebody else's results, only to be read
            os.utime(path, times)  # None is now
