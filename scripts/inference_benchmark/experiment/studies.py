"""Studies: measurements other than cells, each with one file. The ceilings of the machine; for each column of the
tables the largest batch that fits and how far the answers differ from those of the reference; and for single cells
where the time of a call goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from inference_benchmark.engines import ENGINES
from inference_benchmark.experiment.cells import (
    Cell,
    CellError,
    Experiment,
    Workload,
    check_environment,
    exact_fields,
    json_line,
    parsed,
)
from inference_benchmark.experiment.column import Column

#: Raised whenever a study of this kind is done in another way, so that older ones count as stale.
VERSIONS = {"ceilings": 2, "max-batch": 2, "divergence": 2, "timeline": 1}


@dataclass(frozen=True)
class CeilingsStudy:
    """The machine's memory bandwidth and arithmetic at their best. threads: None is hardware.default_threads."""

    machine: str
    device: str
    threads: int | None
    kind: str = "ceilings"
    version: int = VERSIONS["ceilings"]

    @property
    def path(self) -> str:
        return study_path(self.kind, machine=self.machine)

    label = "ceilings"
    memory_limit_bytes = None
    #: They are the machine's, whatever software cells are measured in.
    environment: ClassVar[Mapping[str, str]] = {}

    def to_json(self) -> str:
        """One line, keys sorted: equal studies give equal text."""
        return json_line(self)

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """A study from JSON. Raises CellError."""
        return cls(**exact_fields(cls, document, "a study"))


@dataclass(frozen=True)
class ColumnStudy:
    """A study of one column of the tables: all cells that differ in batch size alone.

    kind: ``max-batch`` or ``divergence``. tolerance_percent: how far a batch that does not fit may be from the largest
    found to fit; None is to the row. The rest is as in Cell; seed and threads are those of its measurement. Answers
    depend on no memory limit and have no tolerance.
    """

    kind: str
    version: int
    machine: str
    device: str
    model: Mapping[str, Any]
    workload: Workload
    engine: str
    precision: str
    memory_limit_bytes: int | None
    seed: int
    threads: int | None
    tolerance_percent: float | None
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, kind: str, cell: Cell, tolerance_percent: float | None = None) -> Self:
        """The study of the column that a cell is in."""
        is_search = kind == "max-batch"
        return cls(
            kind=kind,
            version=VERSIONS[kind],
            machine=cell.machine,
            device=cell.device,
            model=cell.model,
            workload=cell.workload,
            engine=cell.engine,
            precision=cell.precision,
            memory_limit_bytes=cell.memory_limit_bytes if is_search else None,
            seed=cell.measurement.seed,
            threads=cell.threads,
            tolerance_percent=tolerance_percent if is_search else None,
            options=cell.options,
            environment=cell.environment,
        )

    @property
    def base_engine(self) -> str:
        """As Cell.base_engine."""
        return self.options.get("engine", self.engine)

    @property
    def column(self) -> Column:
        return Column.of(self)

    @property
    def tolerance(self) -> float:
        """The tolerance as a part of the largest batch that fits."""
        return (self.tolerance_percent or 0) / 100

    @property
    def path(self) -> str:
        return study_path(self.kind, machine=self.machine, column=self.column.path)

    @property
    def label(self) -> str:
        """For a person: ``bloom-1b3 prompt9-new100 hf bf16 max-batch``."""
        return f"{self.column.label} {self.kind}"

    def to_json(self) -> str:
        """One line, keys sorted: equal studies give equal text."""
        return json_line(self)

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """A study from JSON. Raises CellError."""
        values = exact_fields(cls, document, "a study")
        if not isinstance(values["model"], dict) or "name" not in values["model"]:
            raise CellError(f"model is {values['model']!r}; allowed: a mapping with name")
        check_environment(values)
        return cls(**values | {"workload": Workload(**exact_fields(Workload, values["workload"], "workload"))})


@dataclass(frozen=True)
class TimelineStudy:
    """Where the time of a call of one cell goes, step by step and by kind of work.

    cell: in its first round, with the settings that its calls are repeated by. trace: whether the profile is kept too,
    as a Chrome trace beside the record.
    """

    cell: Cell
    trace: bool
    kind: str = "timeline"
    version: int = VERSIONS["timeline"]

    # What is asked of every subject is that of the cell.
    machine = property(lambda self: self.cell.machine)
    device = property(lambda self: self.cell.device)
    model = property(lambda self: self.cell.model)
    engine = property(lambda self: self.cell.engine)
    precision = property(lambda self: self.cell.precision)
    environment = property(lambda self: self.cell.environment)
    options = property(lambda self: self.cell.options)
    base_engine = property(lambda self: self.cell.base_engine)
    threads = property(lambda self: self.cell.threads)
    memory_limit_bytes = property(lambda self: self.cell.memory_limit_bytes)

    @property
    def path(self) -> str:
        column, batch = self.cell.column.path, self.cell.batch_size
        return study_path(self.kind, machine=self.machine, column=column, batch=batch)

    @property
    def label(self) -> str:
        """For a person: ``bloom-1b3 prompt9-new100 hf bf16 batch 8 timeline``."""
        return f"{self.cell.label} timeline"

    def to_json(self) -> str:
        """One line, keys sorted: equal studies give equal text."""
        return json_line(self)

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """A study from JSON. Raises CellError."""
        values = exact_fields(cls, document, "a study")
        return cls(**values | {"cell": Cell.from_document(values["cell"])})


Study = CeilingsStudy | ColumnStudy | TimelineStudy
#: What one job measures and one file answers.
Subject = Cell | Study


def study_from_json(text: str) -> Study:
    """The study that to_json wrote, of whichever kind. Raises CellError."""
    return study_from_document(parsed(text))


def study_from_document(document: Any) -> Study:
    """A study from JSON, of whichever kind. Raises CellError, also for another version of it."""
    kind, version = (document.get(key) if isinstance(document, dict) else None for key in ("kind", "version"))
    if not isinstance(kind, str) or kind not in VERSIONS:
        raise CellError(f"there is no study named {kind!r}; allowed: {', '.join(VERSIONS)}")
    if version != VERSIONS[kind]:
        raise CellError(f"version of the study {kind} is {version!r}; this program does version {VERSIONS[kind]}")
    return {"ceilings": CeilingsStudy, "timeline": TimelineStudy}.get(kind, ColumnStudy).from_document(document)


def requested_studies(experiment: Experiment) -> Iterator[Study]:
    """The studies that an experiment asks for."""
    requested = {
        "ceilings": True,
        "max-batch": experiment.max_batch,
        "divergence": experiment.divergence,
        "timeline": True,
    }
    return (study for study in possible_studies(experiment) if requested[study.kind])


def possible_studies(experiment: Experiment) -> Iterator[Study]:
    """The studies that can be done. A study that was done is used, whether the experiment asks for it or not.

    An engine that makes up its times has no ceilings, no answers of its own, and only made-up memory. Timelines are
    done of the batch sizes that the experiment names.
    """
    if any(ENGINES[experiment.base_engine(engine)].needs_weights for engine in experiment.engines):
        yield CeilingsStudy(experiment.machine, experiment.device, experiment.measurement.threads)
    columns = list(replace(experiment, rounds=1, batch_sizes=experiment.batch_sizes[:1]).cells())  # one cell of each
    for kind in ("max-batch", "divergence"):
        for cell in columns:
            if kind == "max-batch" or ENGINES[cell.base_engine].needs_weights:
                yield ColumnStudy.of(kind, cell, experiment.max_batch_tolerance_percent)
    for cell in replace(experiment, rounds=1, batch_sizes=experiment.timeline).cells():
        yield TimelineStudy(cell, experiment.timeline_trace)


def study_paths(cell: Cell) -> dict[str, str]:
    """Where the studies that say something about a cell are, by kind."""
    column = cell.column.path
    return {kind: study_path(kind, machine=cell.machine, column=column, batch=cell.batch_size) for kind in VERSIONS}


def study_path(kind: str, *, machine: str, column: str = "", batch: int | str = "") -> str:
    """Where the record of a study is; the output of the rule of its kind, which has the others as wildcards."""
    if kind == "ceilings":
        return f"results/{machine}/ceilings.json"
    name = f"timeline-batch-{batch}" if kind == "timeline" else kind
    return f"results/{machine}/{column}/{name}.json"
