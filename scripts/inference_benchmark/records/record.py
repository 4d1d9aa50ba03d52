"""Records: what a finished cell or study leaves behind. Raw samples, evidence and provenance; never a derived figure.

The format of the files is record.schema.yaml and study.schema.yaml, from which docs/record.md is made.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from inference_benchmark import files
from inference_benchmark.analysis.ceilings import Ceilings
from inference_benchmark.analysis.metrics import MeasuredCell
from inference_benchmark.analysis.roofline import Shapes
from inference_benchmark.experiment.as_json import CellError, difference
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.studies import Study, Subject, study_from_document

OUTCOMES = ("ok", "oom", "unsupported")
#: The phase of a reason that rests on the record of another cell.
OTHER_CELL = "other-cell"


class RecordError(ValueError):
    """A document that is no usable record of a cell or study; the message says why, without the path."""


@dataclass(frozen=True)
class Note:
    """A warning about a figure. name: the rule, as docs/method.md explains it. message: the evidence."""

    name: str
    message: str


@dataclass(frozen=True)
class Reason:
    """Why there is no result.

    phase: what the worker was doing. exception_type: the class of the exception or the name of the signal.
    limit: name and bytes of the memory limit that held. evidence: counters of the kernel, last output, free memory,
    or the search that decided.
    """

    phase: str
    exception_type: str | None
    message: str
    limit: Mapping[str, Any] | None
    evidence: Mapping[str, Any]


#: The range of a sample: from the resolution of clocks to longer than anybody waits. Its figures are finite.
_LEAST_S, _MOST_S = 1e-9, 1e9


@dataclass(frozen=True)
class Run:
    """What one measuring process left: seconds of every call, memory in bytes, energy, and the conditions meanwhile.

    yardstick: times of its kernels ``before`` and ``after``, either of which may be missing; see analysis/yardstick.

    Raises RecordError where a sample is no time that a call can take.
    """

    load_s: float | None
    warmup_s: tuple[float, ...]
    samples_s: tuple[float, ...]
    first_token_s: tuple[float, ...]
    tokens_sha256: tuple[str, ...]
    memory: Mapping[str, int]
    energy: Mapping[str, Any] | None
    conditions: Mapping[str, Any]
    yardstick: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("warmup_s", "samples_s", "first_token_s"):
            if not all(_LEAST_S <= seconds <= _MOST_S for seconds in getattr(self, name)):
                allowed = f"{_LEAST_S:g} to {_MOST_S:g}"
                raise RecordError(f"{name} holds a value that is no finite number of seconds above 0 ({allowed})")

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in document.items()})


@dataclass(frozen=True)
class Stability:
    """Whether the samples of a cell repeat well enough to rely on their mean; see analysis/stability."""

    stable: bool
    reasons: tuple[Note, ...]
    outliers: int | None
    drift: float | None


@dataclass(frozen=True, kw_only=True)
class _Finished:
    """What records of cells and of studies have in common.

    model: what really ran. software, device, host, environment, git: where and with what. started_at, ended_at: ISO
    8601, UTC. attempts: earlier ones that failed and left no record; None where there were none.
    """

    SCHEMA_VERSION: ClassVar[int]
    SCHEMA: ClassVar[Path]
    #: The key of what was measured.
    SUBJECT: ClassVar[str]

    outcome: str
    reason: Reason | None
    flags: tuple[Note, ...]
    model: Mapping[str, Any]
    software: Mapping[str, Any]
    device: Mapping[str, Any]
    host: Mapping[str, Any]
    environment: Mapping[str, str]
    git: Mapping[str, Any] | None
    started_at: str
    ended_at: str
    attempts: tuple[Mapping[str, Any], ...] | None = None

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise RecordError(f"outcome is {self.outcome!r}; allowed: {', '.join(OUTCOMES)}")
        if (self.outcome == "ok") != (self.reason is None):
            raise RecordError(f"outcome {self.outcome} contradicts reason {self.reason and asdict(self.reason)!r}")

    @property
    def flag_names(self) -> list[str]:
        return [flag.name for flag in self.flags]

    def to_document(self) -> dict[str, Any]:
        """The record as JSON has it."""
        return {"schema_version": self.SCHEMA_VERSION, **_document(self)}

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """The inverse of to_document. Raises RecordError where a document breaks the format or contradicts itself."""
        _check_format(cls, document)
        values = {name: value for name, value in document.items() if name != "schema_version"}
        try:
            return cls(**values | cls._parts(values))
        except (CellError, TypeError) as error:
            raise RecordError(str(error)) from None

    @classmethod
    def _parts(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The typed parts of a checked document."""
        parts: dict[str, Any] = {"flags": tuple(Note(**flag) for flag in values["flags"])}
        if values["reason"] is not None:
            parts["reason"] = Reason(**values["reason"])
        if "attempts" in values:
            parts["attempts"] = tuple(values["attempts"])
        return parts


@dataclass(frozen=True, kw_only=True)
class Record(_Finished):
    """The record of one round of a cell, or of all its rounds (rounds.combined), with a run for each.

    Raises RecordError where a measured cell lacks what makes it one.
    """

    SCHEMA_VERSION = 3
    SCHEMA = Path(__file__).with_name("record.schema.yaml")
    SUBJECT = "cell"

    cell: Cell
    runs: tuple[Run, ...]
    stability: Stability | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.runs and (self.reason is None or self.reason.phase not in ("max-batch", OTHER_CELL)):
            raise RecordError(f"outcome {self.outcome} without a run")
        if self._is_of_other_cell and not isinstance(self.reason.evidence.get("record"), str):
            raise RecordError(f"phase {OTHER_CELL} without the record of that cell in its evidence")
        if self.outcome != "ok":
            return
        if self.stability is None:
            raise RecordError("outcome ok without a verdict on its stability")
        for name in ("samples_s", "first_token_s") if self.cell.workload.new_tokens > 1 else ("samples_s",):
            for run in self.runs:
                if len(getattr(run, name)) < self.cell.measurement.min_cycles:
                    raise RecordError(f"outcome ok with {len(getattr(run, name))} of {name}, fewer than min_cycles")

    @property
    def subject(self) -> Cell:
        return self.cell

    @property
    def notes(self) -> tuple[Note, ...]:
        """All warnings about its figures."""
        return (*(self.stability.reasons if self.stability else ()), *self.flags)

    @property
    def rests_on(self) -> Path | None:
        """The record of another cell that showed how this one ends; None where it was tried itself."""
        return Path(self.reason.evidence["record"]) if self._is_of_other_cell else None

    @property
    def _is_of_other_cell(self) -> bool:
        return self.reason is not None and self.reason.phase == OTHER_CELL

    @property
    def memory_bytes(self) -> list[tuple[int, int | None]]:
        """(peak, what there is) of each process: allocated on the device, or resident of the host or its cgroup.

        What an allocator reserves is its history: several times what a growing cache of keys and values ever takes.
        """
        pairs = []
        for memory in (run.memory for run in self.runs):
            if "device_total_bytes" in memory:
                peak_bytes = memory.get("peak_allocated_bytes", memory["peak_reserved_bytes"])
                pairs.append((peak_bytes, memory["device_total_bytes"]))
            elif "peak_rss_bytes" in memory:
                limit = self.host.get("memory_limit") or {"bytes": self.host.get("memory_bytes")}
                pairs.append((memory["peak_rss_bytes"], limit["bytes"]))
        return pairs

    def measured(self, ceilings: Ceilings | None = None) -> MeasuredCell:
        """What the figures follow from; only for the outcome ok. ceilings: of the machine, for its limits."""
        energies = [run.energy for run in self.runs]
        shapes = self.model.get("shapes")
        return MeasuredCell(
            batch_size=self.cell.batch_size,
            prompt_tokens=self.cell.workload.prompt_tokens,
            new_tokens=self.cell.workload.new_tokens,
            whole_s=[run.samples_s for run in self.runs],
            first_token_s=[run.first_token_s for run in self.runs],
            energy_j=None if None in energies else [(each["joules"], each["resolution_j"]) for each in energies],
            memory_bytes=self.memory_bytes,
            shapes=shapes and Shapes.from_record(shapes),
            ceilings=ceilings and ceilings.for_process(tf32=self.model.get("tf32", False)),
        )

    @classmethod
    def _parts(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        parts = super()._parts(values)
        parts["cell"] = Cell.from_document(values["cell"])
        parts["runs"] = tuple(Run.from_document(run) for run in values["runs"])
        if (verdict := values["stability"]) is not None:
            parts["stability"] = Stability(**verdict | {"reasons": tuple(Note(**note) for note in verdict["reasons"])})
        return parts


@dataclass(frozen=True, kw_only=True)
class StudyRecord(_Finished):
    """The record of one study.

    results: as study.schema.yaml has them for each kind. limit: the memory limit of a search.
    Raises RecordError where it contradicts itself.
    """

    SCHEMA_VERSION = 1
    SCHEMA = Path(__file__).with_name("study.schema.yaml")
    SUBJECT = "study"

    study: Study
    results: tuple[Mapping[str, Any], ...]
    limit: Mapping[str, Any] | None
    conditions: Mapping[str, Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.outcome == "ok" and not self.results:
            raise RecordError("outcome ok without results")

    @property
    def subject(self) -> Study:
        return self.study

    @classmethod
    def _parts(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        parts = super()._parts(values)
        return parts | {"study": study_from_document(values["study"]), "results": tuple(values["results"])}


AnyRecord = Record | StudyRecord
R = TypeVar("R", Record, AnyRecord)


def load(path: Path) -> Record:
    """The record of a cell at path. Raises RecordError, and OSError where the file cannot be read."""
    return Record.from_document(_read(path))


def load_any(path: Path) -> AnyRecord:
    """The record at path, of a cell or of a study. Raises RecordError, and OSError where the file cannot be read."""
    document = _read(path)
    return (StudyRecord if isinstance(document, dict) and "study" in document else Record).from_document(document)


def readable(paths: Iterable[Path], load: Callable[[Path], R]) -> Iterator[tuple[Path, R]]:
    """The records at these paths, as far as load (load or load_any) can read them."""
    for path in paths:
        try:
            found = load(path)
        except (RecordError, OSError):
            continue
        yield path, found


def load_for(subject: Subject, path: Path, but_for: Collection[str] = ()) -> AnyRecord:
    """The record at path if it is one of exactly this cell or study. Raises RecordError, OSError.

    but_for: fields of the subject that may be different there.
    """
    cls = Record if isinstance(subject, Cell) else StudyRecord
    document = _read(path)
    _check_format(cls, document)
    # Compared as JSON first: what was measured under other settings may not even have those of today.
    found, wanted = document[cls.SUBJECT], subject.to_document()
    wanted |= {name: found[name] for name in but_for if name in found}
    if found != wanted:
        raise RecordError(f"measured under another configuration: {difference(wanted, found)}")
    return cls.from_document(document)


def write(record: AnyRecord, path: Path) -> None:
    """Write a record whole or not at all; an earlier one there is kept beside it.

    Raises RecordError where it breaks the format, and OSError with nothing left behind but what was there.
    """
    document = record.to_document()
    _check_format(type(record), document)
    files.write_json(document, path)


def check_results(kind: str, results: list[Any]) -> None:
    """Raises RecordError where these are not the results of a study of this kind."""
    import fastjsonschema

    try:
        _results_validator(kind)(results)
    except fastjsonschema.JsonSchemaException as error:
        raise RecordError(f"results{error.message.removeprefix('data')}") from None


def _document(value: Any) -> Any:
    """A dataclass as JSON has it. An optional field, None by default, is left out while it is None."""
    if isinstance(value, tuple):
        return [_document(each) for each in value]
    if isinstance(value, Subject):
        return value.to_document()
    if not is_dataclass(value):
        return value
    parts = {each.name: getattr(value, each.name) for each in fields(value)}
    optional = {each.name for each in fields(value) if each.default is None}
    return {name: _document(part) for name, part in parts.items() if part is not None or name not in optional}


def _read(path: Path) -> Any:
    try:
        return files.read_json(path)
    except ValueError as error:
        raise RecordError(str(error)) from None


def _schema(cls: type[_Finished]) -> dict[str, Any]:
    import yaml

    return yaml.load(cls.SCHEMA.read_text(), yaml.CSafeLoader)


@cache
def _results_validator(kind: str):
    import fastjsonschema

    definitions = _schema(StudyRecord)["$defs"]
    return fastjsonschema.compile({"type": "array", "items": {"$ref": f"#/$defs/{kind}"}, "$defs": definitions})


@cache
def _validator(cls: type[_Finished], kind: str | None):
    import fastjsonschema

    schema = _schema(cls)
    if kind:
        schema["properties"]["results"]["items"] = {"$ref": f"#/$defs/{kind}"}
    return fastjsonschema.compile(schema)


def _check_format(cls: type[_Finished], document: Any) -> None:
    """Raises RecordError where a document breaks the schema of its class."""
    import fastjsonschema

    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != cls.SCHEMA_VERSION:
        raise RecordError(f"schema_version is {version!r}; this program reads version {cls.SCHEMA_VERSION}")
    subject = document.get(cls.SUBJECT)
    try:
        kind = study_from_document(subject).kind if cls is StudyRecord and isinstance(subject, dict) else None
        _validator(cls, kind)(document)
    except fastjsonschema.JsonSchemaException as error:
        raise RecordError(error.message.removeprefix("data.")) from None
    except CellError as error:
        raise RecordError(str(error)) from None
