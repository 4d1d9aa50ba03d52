"""Studies: measurements other than cells, each with one file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

from inference_benchmark.analysis.quality import PROMPT_TOKENS, SCORED_TOKENS
from inference_benchmark.engines import ENGINES
from inference_benchmark.engines.options import offloads
from inference_benchmark.experiment.as_json import AsJson, CellError, parsed
from inference_benchmark.experiment.cells import Cell, ColumnSettings, Workload
from inference_benchmark.experiment.experiment import Experiment

#: Raised whenever a study of this kind is done in another way, so that older ones count as stale.
VERSIONS = {"ceilings": 2, "max-batch": 2, "divergence": 2, "batch-invariance": 1, "quality": 2, "timeline": 1}
#: The workload of a quality study: a window of the text.
_WINDOW = Workload(PROMPT_TOKENS, SCORED_TOKENS)


class Study(AsJson):
    """Base of all studies. setup: as a cell has it. path: where its record is. label: for a person."""

    NOUN = "a study"
    kind: str
    version: int


@dataclass(frozen=True)
class CeilingsStudy(Study):
    """The machine's memory bandwidth and arithmetic at their best. threads: None is hardware.default_threads. links:
    also those over which weights come that are kept elsewhere."""

    machine: str
    device: str
    threads: int | None
    kind: str = "ceilings"
    version: int = VERSIONS["ceilings"]
    links: bool = False

    label = "ceilings"
    memory_limit_bytes = None
    #: They are the machine's, whatever software cells are measured in.
    environment: ClassVar[Mapping[str, str]] = {}
    gpus: ClassVar[int] = 1

    @property
    def setup(self) -> Self:
        return self

    @property
    def path(self) -> str:
        return study_path(self.kind, machine=self.machine)


@dataclass(frozen=True, kw_only=True)
class ColumnStudy(Study, ColumnSettings):
    """A study of one column of the tables: all cells that differ in batch size alone.

    kind: ``max-batch``, the largest batch that fits, ``divergence``, how far the answers differ from those of the
    reference, or that of a BatchStudy or QualityStudy. tolerance_percent: how far a batch that does not fit may be
    from the largest found to fit; None is to the row. seed and threads are those of the cells' measurement. Answers
    have no tolerance, and depend on no memory limit unless it decides where weights are or which batches fit.
    """

    kind: str
    version: int
    seed: int
    threads: int | None
    tolerance_percent: float | None

    @classmethod
    def of(cls, kind: str, cell: Cell, tolerance_percent: float | None = None) -> Self:
        """The study of the column that a cell is in."""
        settings = {each.name: getattr(cell, each.name) for each in fields(ColumnSettings)}
        settings |= {"seed": cell.measurement.seed, "threads": cell.threads, "tolerance_percent": tolerance_percent}
        if kind != "max-batch":
            settings["tolerance_percent"] = None
        # Where weights are kept elsewhere, the limit decides which.
        if kind in ("divergence", "quality") and not offloads(cell.options):
            settings["memory_limit_bytes"] = None
        return cls(**settings, kind=kind, version=VERSIONS[kind])

    @property
    def tolerance(self) -> float:
        """The tolerance as a part of the largest batch that fits."""
        return (self.tolerance_percent or 0) / 100

    @property
    def path(self) -> str:
        return study_path(self.kind, machine=self.machine, column=self.column.path)

    @property
    def label(self) -> str:
        """``bloom-1b3 prompt9-new100 hf bf16 max-batch``"""
        return f"{self.column.label} {self.kind}"


@dataclass(frozen=True, kw_only=True)
class BatchStudy(ColumnStudy):
    """Whether the answers of a column are the same at each of these batch sizes, in rising order."""

    batch_sizes: tuple[int, ...]

    @classmethod
    def at(cls, batch_sizes: tuple[int, ...], cell: Cell) -> Self:
        """The study of the column that a cell is in."""
        return cls(**vars(ColumnStudy.of("batch-invariance", cell)), batch_sizes=tuple(sorted(batch_sizes)))


@dataclass(frozen=True, kw_only=True)
class QualityStudy(ColumnStudy):
    """How well a model in an engine and precision predicts a text. It depends on no workload and no seed.

    text: its name; text_sha256: of the part that is read (models.texts.Text). tokens: how many of it, at most.
    """

    text: str
    text_sha256: str
    tokens: int

    @classmethod
    def of_text(cls, text: Mapping[str, Any], cell: Cell) -> Self:
        """The study of the model, engine and precision of a cell. text: as Experiment.quality."""
        column = ColumnStudy.of("quality", replace(cell, workload=_WINDOW))
        return cls(**vars(column) | {"seed": 0}, **text)


@dataclass(frozen=True)
class TimelineStudy(Study):
    """Where the time of a call of one cell goes, step by step and by kind of work.

    cell: in its first round, with the settings that its calls are repeated by. trace: whether the profile is kept too,
    as a Chrome trace beside the record.
    """

    cell: Cell
    trace: bool
    kind: str = "timeline"
    version: int = VERSIONS["timeline"]

    @property
    def setup(self) -> Cell:
        return self.cell

    @property
    def path(self) -> str:
        cell = self.cell
        return study_path(self.kind, machine=cell.machine, column=cell.column.path, batch=cell.batch_size)

    @property
    def label(self) -> str:
        """For a person: ``bloom-1b3 prompt9-new100 hf bf16 batch 8 timeline``."""
        return f"{self.cell.label} timeline"


#: What one job measures and one file answers.
Subject = Cell | Study


def subject_from_json(text: str) -> Subject:
    """The cell or study that to_json wrote. Raises CellError, also for another version of it."""
    document = parsed(text)
    is_study = isinstance(document, dict) and "kind" in document
    return study_from_document(document) if is_study else Cell.from_json(text)


def study_from_json(text: str) -> Study:
    """The study that to_json wrote, of whichever kind. Raises CellError."""
    return study_from_document(parsed(text))


def study_from_document(document: Any) -> Study:
    """A study from JSON, of whichever kind. Raises CellError, also for another version of it."""
    special = {
        "ceilings": CeilingsStudy, "batch-invariance": BatchStudy, "quality": QualityStudy, "timeline": TimelineStudy,
    }  # fmt: skip
    cls = special.get(kind_of(document), ColumnStudy)
    return cls.from_document(document)


def kind_of(document: Any) -> str:
    """The kind of a study in JSON. Raises CellError where there is none of this kind and version."""
    kind, version = (document.get(key) if isinstance(document, dict) else None for key in ("kind", "version"))
    if not isinstance(kind, str) or kind not in VERSIONS:
        raise CellError(f"there is no study named {kind!r}; allowed: {', '.join(VERSIONS)}")
    if version != VERSIONS[kind]:
        raise CellError(f"version of the study {kind} is {version!r}; this program does version {VERSIONS[kind]}")
    return kind


def requested_studies(experiment: Experiment) -> Iterator[Study]:
    """The studies that an experiment asks for."""
    is_on = {"max-batch": experiment.max_batch, "divergence": experiment.divergence}
    is_on["batch-invariance"] = experiment.batch_invariance
    return (study for study in possible_studies(experiment) if is_on.get(study.kind, True))


def possible_studies(experiment: Experiment) -> Iterator[Study]:
    """The studies that can be done. A study that was done is used, whether the experiment asks for it or not.

    An engine that makes up its times has no ceilings, no answers of its own, and only made-up memory. Timelines are
    done of the batch sizes, and quality is of the text, that the experiment names.
    """
    columns = list(replace(experiment, rounds=1, batch_sizes=experiment.batch_sizes[:1]).cells())  # one cell of each
    real = [cell for cell in columns if ENGINES[cell.base_engine].needs_weights]
    if real:
        links = any(offloads(cell.options) for cell in columns)
        yield CeilingsStudy(experiment.machine, experiment.device, experiment.measurement.threads, links=links)
    yield from (ColumnStudy.of("max-batch", cell, experiment.max_batch_tolerance_percent) for cell in columns)
    yield from (ColumnStudy.of("divergence", cell) for cell in real)
    yield from (BatchStudy.at(experiment.batch_sizes, cell) for cell in real)
    if experiment.quality:
        studies = (QualityStudy.of_text(experiment.quality, cell) for cell in real)
        yield from {study.path: study for study in studies}.values()  # one for all workloads
    for cell in replace(experiment, rounds=1, batch_sizes=experiment.timeline).cells():
        yield TimelineStudy(cell, experiment.timeline_trace)


def study_paths(cell: Cell) -> dict[str, str]:
    """Where the studies that say something about a cell are, by kind."""
    of_text = replace(cell.column, prompt_tokens=PROMPT_TOKENS, new_tokens=SCORED_TOKENS, prompts="")
    columns = {kind: (of_text if kind == "quality" else cell.column).path for kind in VERSIONS}
    where = {"machine": cell.machine, "batch": cell.batch_size}
    return {kind: study_path(kind, column=column, **where) for kind, column in columns.items()}


def study_path(kind: str, *, machine: str, column: str = "", batch: int | str = "") -> str:
    """Where the record of a study is; the output of the rule of its kind, which has the others as wildcards."""
    if kind == "ceilings":
        return f"results/{machine}/ceilings.json"
    name = f"timeline-batch-{batch}" if kind == "timeline" else kind
    return f"results/{machine}/{column}/{name}.json"
