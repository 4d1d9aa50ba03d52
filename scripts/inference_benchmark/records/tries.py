"""Tries of a search for the largest batch, kept beside the place of its record until that is written.

Each is written as it ends, so that an interrupted search loses none: the next attempt goes on from them, if it is the
same search in the same circumstances.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from inference_benchmark import files
from inference_benchmark.experiment.as_json import difference
from inference_benchmark.experiment.cells import without_path
from inference_benchmark.experiment.studies import ColumnStudy
from inference_benchmark.records.check import RecordError
from inference_benchmark.records.comparability import disagreeing, facts_that_must_agree
from inference_benchmark.records.study_results import check_results


@dataclass(frozen=True)
class Tries:
    """The tries so far of one search. circumstances: as the function of that name says. started_at: when the first of
    its attempts began, ISO 8601."""

    study: ColumnStudy
    circumstances: Mapping[str, Any]
    started_at: str
    results: tuple[Mapping[str, Any], ...] = ()

    def write(self, output: Path) -> None:
        """Keep them for the next attempt. Raises OSError. output: the place of the search's record."""
        document = {**vars(self), "study": self.study.to_document()}
        files.write(json.dumps(document, indent=1, sort_keys=True) + "\n", path(output))


def path(output: Path) -> Path:
    """Where the tries of a search are kept: ``max-batch.tries.json``. output: the place of its record."""
    return output.with_name(f"{output.stem}.tries.json")


def circumstances(origin: Mapping[str, Any], limit: Mapping[str, Any] | None) -> dict[str, Any]:
    """What must be the same for tries of another attempt to count: what cells of one table must agree in, and memory.
    The host memory that a job of a scheduler is granted may grow from attempt to attempt, and decides no try. origin:
    where and with what, as a record has it. limit: the search's memory limit."""
    host_limit = None if origin["host"]["job"] else origin["host"]["memory_limit"]
    return {
        **facts_that_must_agree(SimpleNamespace(**{"model": {}, **origin})),
        "memory limit (bytes)": limit and limit["bytes"],
        "host memory limit (bytes)": host_limit and host_limit["bytes"],
    }


def earlier(output: Path, now: Tries) -> Tries:
    """now, with the tries that an earlier attempt at the same search left and its beginning; now as it is without any.
    Raises RecordError, which says why, where tries were left and cannot be used."""
    try:
        document = files.read_json(path(output))
    except FileNotFoundError:
        return now
    except (ValueError, OSError) as error:
        raise RecordError(str(error)) from None
    expected = {"study": dict, "circumstances": dict, "started_at": str, "results": list}
    if not isinstance(document, dict) or any(not isinstance(document.get(k), kind) for k, kind in expected.items()):
        raise RecordError(f"not the tries of a search; expected {', '.join(expected)}")
    if (wanted := now.study.to_document()) != (tried := without_path(document["study"])):
        raise RecordError(f"tried under another configuration: {difference(wanted, tried)}")
    if differing := disagreeing(document["circumstances"], now.circumstances):
        facts = (f"{name} was {was}, is now {is_now}" for name, (was, is_now) in differing.items())
        raise RecordError(f"tried in other circumstances: {'; '.join(facts)}")
    check_results(now.study.kind, document["results"])
    return Tries(now.study, now.circumstances, document["started_at"], tuple(document["results"]))


def forget(output: Path) -> None:
    """Remove them, once the record is written. Raises nothing: the record counts without it."""
    with suppress(OSError):
        path(output).unlink()
