"""Whether derived files are up to date with the records and the configuration.

Snakemake judges by modification times and by its metadata in .snakemake. A clone, a copy or an unpacked archive has no
metadata and times in no order, and a changed setting would go unnoticed. So collect notes a digest of everything it
read, and so does what decides how many rounds cells need. When Snakemake starts, the digests are compared and the
modification times of derived files are set accordingly.
"""

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from inference_benchmark import files
from inference_benchmark.experiment import baselines
from inference_benchmark.experiment.experiment import Experiment
from inference_benchmark.experiment.outputs import derived, overall
from inference_benchmark.experiment.rounds import DECISION_VERSION, decision_path, further_cells, read_decision
from inference_benchmark.experiment.studies import possible_studies


class Digests(NamedTuple):
    """grid: of the cells and of the records of the rounds of the whole grid. inputs: of the experiment, and of the
    content of every record, study and baseline of it that exists. further: the records of further rounds among these,
    whether they exist or not; None where it is still to be decided which there are."""

    grid: str
    inputs: str
    further: Sequence[str] | None


def digests(experiment: Experiment) -> Digests:
    """The digests of what an experiment has by now. Each file is read once."""
    texts = f"{DECISION_VERSION}\0{experiment.grid_json()}", experiment.to_json()
    grid, inputs = (hashlib.sha256(text.encode()) for text in texts)
    for part in _contents(experiment.by_path):
        grid.update(part)
        inputs.update(part)
    decision = read_decision(experiment)
    is_decided = experiment.most_rounds is None or (decision and decision.inputs_sha256 == grid.hexdigest())
    further = [cell.path for cell in further_cells(experiment, decision)] if is_decided else None
    studies = (study.path for study in possible_studies(experiment))
    for part in _contents(chain(further or (), studies, baselines.files(experiment.baselines.values()))):
        inputs.update(part)
    return Digests(grid.hexdigest(), inputs.hexdigest(), further)


def _contents(paths: Iterable[str]) -> Iterator[bytes]:
    """Path and content of each file that exists."""
    for path in paths:
        with suppress(OSError):
            content = files.read(path)
            yield f"\0{path}\0{len(content)}\0".encode() + content


def not_files(paths: Iterable[str]) -> list[str]:
    """One line for each path of a record where something other than a file that may be read is."""
    problems = []
    for path in paths:
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                problems.append(f"{path}: is not a file; remove it, or put the record there")
            elif not os.access(path, os.R_OK):
                problems.append(f"{path}: may not be read; change its mode, or remove it")
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
    return problems


def date_future_files(paths: Iterable[str | Path]) -> list[str]:
    """Date files to now that are dated in the future, as an unpacked archive or a wrong clock leaves them: what is made
    from them would be older, which Snakemake refuses. paths: files, and folders with all below them. Returns one line
    for each that cannot be dated."""
    now, problems = time.time(), []
    for path in chain.from_iterable(map(_with_all_below, paths)):
        with suppress(FileNotFoundError):
            if os.stat(path).st_mtime > now:
                try:
                    os.utime(path, (now, now))
                except OSError as error:
                    problems.append(f"{path}: is dated in the future ({error.strerror}); run: touch {path}")
    return problems


def _with_all_below(path: str | Path) -> Iterator[str | Path]:
    yield path
    for folder, _, names in os.walk(path):
        yield from (os.path.join(folder, name) for name in names)


def date_derived_files(
    experiments: Sequence[Experiment], metadata: Path = Path(".snakemake/metadata")
) -> tuple[Mapping[str, Sequence[str]], Sequence[str]]:
    """Date derived files so that Snakemake makes them again only if their content is out of date.

    Where Snakemake has metadata (it has run here before), files whose content is up to date are left alone, so that
    changed code and templates are noticed. Returns the records of further rounds of each machine for which a decision
    is up to date, and the files that are out of date, for date_back.
    """
    has_metadata = metadata.is_dir() and any(metadata.iterdir())
    decided, stale = {}, []
    for experiment in experiments:
        existing = _existing(derived(experiment))
        decision = _existing([decision_path(experiment.machine)] if experiment.most_rounds is not None else [])
        if not existing and not decision:
            continue
        found = digests(experiment)
        if found.further is None:
            stale += decision
        else:
            decided[experiment.machine] = found.further
        if _noted_digest(experiment) != found.inputs:
            stale += existing
        elif not has_metadata:
            _date_now(existing)
    if not has_metadata:
        _date_now(_existing(overall(experiments)))  # after what it is made from
    return decided, stale


def date_back(paths: Iterable[str]) -> None:
    """Date files back, so that Snakemake makes them again. Raises OSError."""
    for path in paths:
        os.utime(path, (1, 1))


def _existing(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if os.path.exists(path)]


def _noted_digest(experiment: Experiment) -> str | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        return files.read_json(Path("results", experiment.machine, "provenance.json"))["inputs_sha256"]
    return None


def _date_now(paths: Iterable[str]) -> None:
    """All alike: they are in no order, and one dated before another that it is made from would be out of date."""
    now = time.time()
    for path in paths:
        with suppress(OSError):  # somebody else's results, only to be read
            os.utime(path, (now, now))
