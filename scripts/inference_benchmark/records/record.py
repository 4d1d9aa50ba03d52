"""Records: what a finished cell or study leaves behind. Raw samples, evidence and provenance; never a derived figure.

The format of the files is that of these types. docs/record.md is made from them and what ``#:`` says about a key.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import msgspec
from msgspec import Meta

from inference_benchmark.analysis.ceilings import Ceilings
from inference_benchmark.analysis.metrics import MeasuredCell
from inference_benchmark.analysis.roofline import Shapes
from inference_benchmark.experiment.as_json import CellError
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.studies import Study, Subject, kind_of, study_from_document
from inference_benchmark.records.check import OtherSettingsError, RecordError, check_known, checked
from inference_benchmark.records.parts import Conditions, FailedAttempt, Limit, Note, Reason, Run, SetAside, Stability
from inference_benchmark.records.study_results import check_results

OUTCOMES = ("ok", "oom", "unsupported")
#: The phase of a reason that was derived from the record of another cell.
OTHER_CELL = "other-cell"


@dataclass(frozen=True, kw_only=True)
class _Finished:
    """What records of cells and of studies have in common."""

    #: The key of what was measured.
    SUBJECT: ClassVar[str]
    #: The keys that are called otherwise here.
    KEYS: ClassVar[Mapping[str, str]] = {"environment": "variables"}

    #: ok: measured. oom: did not fit. unsupported: not supported by this engine, library or device; reason says what
    #: does not go together. A search that ran out of memory is ok.
    outcome: Annotated[str, Meta(extra_json_schema={"enum": OUTCOMES})]
    reason: Reason | None  #: Why the outcome is not ok; null if it is ok.
    flags: tuple[Note, ...]  #: Warnings about the cell or study; docs/method.md explains each name.
    #: What actually ran, read from the loaded model and its first call: parameters, dtypes of weights and activations,
    #: attention, cache class, quantised layers and outlier threshold, how many weights of the blocks are stored how,
    #: outlier columns of the prompts, device map, threads, compiled graphs and compile seconds, TF32 and matmul
    #: settings; folder, format (safetensors or pickle) and files of the weights; and the shapes that determine the work
    #: (docs/limits.md).
    model: Mapping[str, Any]
    #: Versions of Python and of the packages that affect speed, as they are imported. Where one is not an installed
    #: package but, for example, a checkout, its place follows in parentheses.
    software: Mapping[str, Any]
    #: Name, driver and memory of the device. Of several GPUs those of the first, with name, uuid and memory of each
    #: (devices) and the kinds of links between them (links).
    device: Mapping[str, Any]
    #: Host or node name, job id of the scheduler, kernel, CPU, memory, container and its limits.
    host: Mapping[str, Any]
    variables: Mapping[str, str]  #: Environment variables of the worker that can affect speed.
    #: Commit of this program, and whether its code had uncommitted changes, or why that is unknown; null outside a
    #: checkout.
    git: Mapping[str, Any] | None
    #: Earlier attempts in the same run that failed and left no record. Absent if there were none.
    attempts: tuple[FailedAttempt, ...] | None = None
    started_at: str  #: ISO 8601, UTC.
    ended_at: str  #: ISO 8601, UTC.

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise RecordError(f"outcome is {self.outcome!r}; allowed: {', '.join(OUTCOMES)}")
        if (self.outcome == "ok") != (self.reason is None):
            raise RecordError(f"outcome {self.outcome} contradicts reason {self.reason and asdict(self.reason)!r}")
        if self._is_of_other_cell and not isinstance(self.reason.evidence.get("record"), str):
            raise RecordError(f"phase {OTHER_CELL} without the record of that cell in its evidence")

    @property
    def subject(self) -> Subject:
        return getattr(self, self.SUBJECT)

    @property
    def took_s(self) -> float:
        """Seconds from its start to its end."""
        return (datetime.fromisoformat(self.ended_at) - datetime.fromisoformat(self.started_at)).total_seconds()

    @property
    def rests_on(self) -> Path | None:
        """The record of another cell that showed how this one ends; None where it was tried itself."""
        return Path(self.reason.evidence["record"]) if self._is_of_other_cell else None

    @property
    def _is_of_other_cell(self) -> bool:
        return self.reason is not None and self.reason.phase == OTHER_CELL

    @property
    def flag_names(self) -> list[str]:
        return [flag.name for flag in self.flags]

    def to_document(self) -> dict[str, Any]:
        """The record as JSON has it."""
        document = msgspec.to_builtins({**vars(self), self.SUBJECT: self.subject.to_document()})
        document["environment"] = document.pop("variables")
        runs = [*document.get("runs", ()), *(each["run"] for each in document.get("set_aside") or ())]
        for of, part in ((type(self), document), *((Run, run) for run in runs)):
            for name in _optional(of):
                if part.get(name) is None:
                    part.pop(name, None)
        return document

    @classmethod
    def check_versions(cls, document: Any) -> None:
        """Raises RecordError where a document is of another version than is read here."""
        version = document.get("schema_version") if isinstance(document, dict) else None
        if version != cls.schema_version:
            raise RecordError(f"schema_version is {version!r}; this program reads version {cls.schema_version}")

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """The inverse of to_document. Raises RecordError where a document breaks the format or contradicts itself."""
        cls.check_versions(document)
        try:
            subject = cls._subject_from(document.get(cls.SUBJECT))
        except CellError as error:
            raise RecordError(str(error)) from None
        parts = {cls.KEYS.get(key, key): part for key, part in document.items()} | {cls.SUBJECT: subject}
        record = checked(parts, cls)
        check_known(parts, record)
        return record


@dataclass(frozen=True, kw_only=True)
class Record(_Finished):
    """The record of one round of a cell, or of all its rounds (rounds.combined), with a run for each. Raises
    RecordError where a measured cell lacks what makes it one."""

    # History of schema_version:
    #   1  first
    #   2  runs (a list of processes) instead of one; first tokens, energy, conditions, stability, flags, environment
    #   3  tokens_sha256; shapes, compilation and outlier columns in model; an oom may refer to a search and have no
    #      runs; attempts, yardstick, cell.options, cell.environment, set_aside, runs[].waited_s and
    #      runs[].compiled_calls (optional) were added later

    SUBJECT = "cell"
    _subject_from = staticmethod(Cell.from_document)

    schema_version: Literal[3] = 3  #: Version of this format.
    cell: Cell  #: The measured cell, with every setting that affects its figures.
    #: One entry, of the process that measured the cell in this round. Empty only if a search or another record decided.
    runs: tuple[Run, ...]
    stability: Stability | None  #: Whether the samples are repeatable; null if the outcome is not ok.
    #: Disturbed measurements of the same round, of which the least disturbed is in runs. No figure uses the others.
    #: Absent if there were none.
    set_aside: tuple[SetAside, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.runs and (self.reason is None or self.reason.phase not in ("max-batch", OTHER_CELL)):
            raise RecordError(f"outcome {self.outcome} without a run")
        if self.outcome != "ok":
            return
        if self.stability is None:
            raise RecordError("outcome ok without a verdict on its stability")
        for name in ("samples_s", "first_token_s") if self.cell.workload.new_tokens > 1 else ("samples_s",):
            for samples_s in (getattr(run, name) for run in self.runs):
                call_s = sum(samples_s) / max(1, len(samples_s))
                if len(samples_s) < self.cell.measurement.fewest_calls(call_s):
                    raise RecordError(f"outcome ok with {len(samples_s)} of {name}, fewer than min_cycles")

    @classmethod
    def from_document(cls, document: Any) -> Self:
        record = super().from_document(document)
        if len(record.runs) > 1:  # only rounds.combined gives a record those of several rounds
            raise RecordError(f"runs has {len(record.runs)} entries; the record of a round has one")
        return record

    @property
    def notes(self) -> tuple[Note, ...]:
        """All warnings about its figures."""
        return (*(self.stability.reasons if self.stability else ()), *self.flags)

    @property
    def memory_bytes(self) -> list[tuple[int, int | None]]:
        """(peak, size of the memory) of each process: allocated on the device, of several on each, or resident of the
        host or its cgroup. What an allocator reserves is its history: several times what a growing cache ever takes."""
        pairs = []
        for memory in (each for run in self.runs for each in run.memory.get("devices", [run.memory])):
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


@dataclass(frozen=True, kw_only=True)
class StudyRecord(_Finished):
    """The record of one study. Raises RecordError where it contradicts itself."""

    # History of schema_version:
    #   1  first; attempts (optional), the evidence of a try (optional) and calls_per_sample (optional) were added
    #      later; version 2 of the ceilings names the kernel of each matmul

    SUBJECT = "study"
    _subject_from = staticmethod(study_from_document)

    schema_version: Literal[1] = 1  #: Version of this format.
    #: The study, with every setting that affects its result. Of a timeline: the cell, and whether there is a trace.
    study: Study
    results: tuple[Mapping[str, Any], ...]  #: See below for each kind of study.
    limit: Limit | None  #: The memory limit of a search; null for other studies.
    #: State of device and machine while ceilings or a timeline were measured, as for a cell; empty for other studies.
    conditions: Conditions

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.outcome == "ok" and not self.results:
            raise RecordError("outcome ok without results")

    @classmethod
    def check_versions(cls, document: Any) -> None:
        super().check_versions(document)
        try:
            kind_of(document.get("study"))
        except CellError as error:
            raise OtherSettingsError(str(error)) from None

    @classmethod
    def from_document(cls, document: Any) -> Self:
        record = super().from_document(document)
        check_results(record.study.kind, document["results"])
        return record


AnyRecord = Record | StudyRecord


@cache
def _optional(of: type) -> tuple[str, ...]:
    """The fields of a dataclass that are left out while they are None: they were added later."""
    return tuple(each.name for each in fields(of) if each.default is None)
