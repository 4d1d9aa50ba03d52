"""The record of one cell: raw samples, evidence, provenance, and a verdict on them. Never a derived figure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from inference_benchmark import files
from inference_benchmark.experiment.cells import Cell, difference

SCHEMA_VERSION = 3


class RecordError(ValueError):
    """A file that is no usable record of the cell asked for; the message says why, without the path."""


@cache
def _validator():
    import fastjsonschema
    import yaml

    schema = yaml.load(Path(__file__).with_name("record.schema.yaml").read_text(), yaml.CSafeLoader)
    return fastjsonschema.compile(schema)


def check(record: Any) -> None:
    """Raises RecordError where a record breaks the schema or contradicts itself."""
    import fastjsonschema

    version = record.get("schema_version") if isinstance(record, dict) else None
    if version != SCHEMA_VERSION:
        raise RecordError(f"schema_version is {version!r}; this program reads version {SCHEMA_VERSION}")
    try:
        _validator()(record)
    except fastjsonschema.JsonSchemaException as error:
        raise RecordError(error.message.removeprefix("data.")) from None
    outcome, runs, cell = record["outcome"], record["runs"], record["cell"]
    for name in ("warmup_s", "samples_s", "first_token_s"):
        if not all(math.isfinite(seconds) for run in runs for seconds in run[name]):
            raise RecordError(f"{name} holds a value that is no finite number of seconds")
    if (outcome == "ok") != (record["reason"] is None):
        raise RecordError(f"outcome {outcome} contradicts reason {record['reason']!r}")
    if not runs and (record["reason"] or {}).get("phase") != "max-batch":
        raise RecordError(f"outcome {outcome} without a run")
    if outcome == "ok":
        _check_complete(record["stability"], runs, cell)


def _check_complete(stability: Any, runs: list[dict[str, Any]], cell: Mapping[str, Any]) -> None:
    """Raises RecordError where a measured cell lacks what makes it one."""
    wanted = cell["measurement"]
    if stability is None:
        raise RecordError("outcome ok without a verdict on its stability")
    if len(runs) != wanted["processes"]:
        raise RecordError(f"outcome ok with {len(runs)} runs, not one per process")
    for name in ("samples_s", "first_token_s") if cell["workload"]["new_tokens"] > 1 else ("samples_s",):
        for run in runs:
            if len(run[name]) < wanted["min_cycles"]:
                raise RecordError(f"outcome ok with {len(run[name])} of {name}, fewer than min_cycles")


def load(path: Path) -> dict[str, Any]:
    """A checked record. Raises RecordError, and OSError where the file cannot be read."""
    try:
        record = files.read_json(path)
    except ValueError as error:
        raise RecordError(str(error)) from None
    check(record)
    return record


def load_for(cell: Cell, path: Path) -> dict[str, Any]:
    """The record at path if it is one of exactly this cell. Raises RecordError, OSError."""
    record = load(path)
    if record["cell"] != vars(cell):
        wanted = json.loads(cell.to_json())
        raise RecordError(f"measured under another configuration: {difference(wanted, record['cell'])}")
    return record


def write(record: Mapping[str, Any], path: Path) -> None:
    """Write a checked record whole or not at all; an earlier record there is kept beside it.

    Raises RecordError, and OSError with nothing left behind but what was there.
    """
    check(record)
    files.write_json(record, path)
