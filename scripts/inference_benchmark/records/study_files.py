"""The file that a study leaves behind: checked when written, and refused by name where it is of something else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from inference_benchmark import files
from inference_benchmark.analysis.max_batch import edge
from inference_benchmark.experiment.cells import difference
from inference_benchmark.experiment.studies import Ceilings, ColumnStudy

SCHEMA_VERSION = 1
SCHEMA = Path(__file__).with_name("study.schema.yaml")


class StudyError(ValueError):
    """A file that is no usable study of what was asked for; the message says why, without the path."""


@cache
def _validator(kind: str):
    import fastjsonschema
    import yaml

    schema = yaml.load(SCHEMA.read_text(), yaml.CSafeLoader)
    schema["properties"]["results"]["items"] = {"$ref": f"#/$defs/{kind}"}
    return fastjsonschema.compile(schema)


def check(document: Any, kind: str) -> None:
    """Raises StudyError where a document is no study of this kind, or contradicts itself."""
    import fastjsonschema

    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise StudyError(f"schema_version is {version!r}; this program reads version {SCHEMA_VERSION}")
    try:
        _validator(kind)(document)
    except fastjsonschema.JsonSchemaException as error:
        raise StudyError(error.message.removeprefix("data.")) from None
    if (document["outcome"] == "ok") != (document["reason"] is None):
        raise StudyError(f"outcome {document['outcome']} contradicts reason {document['reason']!r}")
    if document["outcome"] == "ok" and not document["results"]:
        raise StudyError("outcome ok without results")


def load_for(study: Ceilings | ColumnStudy, path: Path) -> dict[str, Any]:
    """The document at path if it is one of exactly this study. Raises StudyError, OSError."""
    try:
        document = files.read_json(path)
    except ValueError as error:
        raise StudyError(str(error)) from None
    check(document, study.kind)
    wanted = json.loads(study.to_json())
    if document["study"] != wanted:
        raise StudyError(f"found out under another configuration: {difference(wanted, document['study'])}")
    return document


def write(document: Mapping[str, Any], path: Path) -> None:
    """Write a checked document whole or not at all; an earlier one is kept beside it. Raises StudyError, OSError."""
    check(document, document["study"]["kind"])
    files.write_json(document, path)


def decisive(search: Mapping[str, Any], batch_size: int) -> dict[str, Any] | None:
    """The try of a search that says that a batch size does not fit; None where it says no such thing."""
    if search["outcome"] != "ok":
        return None
    fails = edge(search["results"]).fails
    if fails is None or batch_size < fails:
        return None
    return next(t for t in search["results"] if t["batch_size"] == fails and not t["fits"])
