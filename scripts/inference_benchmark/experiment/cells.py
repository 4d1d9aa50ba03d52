"""Cells, the unit of the benchmark; the experiment whose grid they make up; and how a measurement is watched."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Self

from inference_benchmark import files
from inference_benchmark.analysis import statistics
from inference_benchmark.experiment.column import Column, batch_label

#: The name of a cell's record without its ending, as record_path makes it: batch size, and from round 2 on the round.
RECORD_STEM = r"batch-(\d+)(?:\.round-(\d+))?"
#: Raised whenever the way a cell is measured changes, so that older records count as stale.
MEASURE_VERSION = 4


class CellError(ValueError):
    """A text or mapping that does not describe a cell, study or experiment; the message says why."""


@dataclass(frozen=True)
class Workload:
    """Lengths of every row, in tokens: of the prompt, and of the answer. Raises CellError where one is below 1."""

    prompt_tokens: int
    new_tokens: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if type(value) is not int or value < 1:
                raise CellError(f"{name} is {value!r}; allowed: an integer >= 1")

    @property
    def name(self) -> str:
        """As a part of paths: ``prompt9-new100``. Other lengths go to another folder."""
        return f"prompt{self.prompt_tokens}-new{self.new_tokens}"


@dataclass(frozen=True)
class Measurement:
    """How a cell is measured in each round: the ``measurement`` settings of config.yaml, explained in docs/config.md.

    threads: None is hardware.default_threads. Raises CellError where a setting is out of range.
    """

    warmup_tolerance_percent: float
    max_warmup_calls: int
    min_cycles: int
    min_seconds: float
    target_half_width_percent: float
    max_seconds: float
    seed: int
    threads: int | None

    def __post_init__(self) -> None:
        least = {"max_warmup_calls": 2, "min_cycles": 2, "seed": 0}
        if self.threads is not None:
            least["threads"] = 1
        for name, bound in least.items():
            value = getattr(self, name)
            if type(value) is not int or value < bound:
                raise CellError(f"measurement.{name} is {value!r}; allowed: an integer >= {bound}")
        for name in ("warmup_tolerance_percent", "min_seconds", "target_half_width_percent", "max_seconds"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
                raise CellError(f"measurement.{name} is {value!r}; allowed: a number >= 0")

    @property
    def warmup_tolerance(self) -> float:
        """By how much successive warm-up calls may differ, as a part of the shorter one."""
        return self.warmup_tolerance_percent / 100

    @property
    def target_half_width(self) -> float:
        """The half width of the 95 % interval to reach, as a part of the mean."""
        return self.target_half_width_percent / 100

    def is_enough(self, samples_s: list[float]) -> bool:
        """Whether a process has repeated its call often enough: min_cycles and min_seconds, then until the
        interval is narrow enough or max_seconds are over."""
        elapsed_s = math.fsum(samples_s)
        if len(samples_s) < self.min_cycles or elapsed_s < self.min_seconds:
            return False
        return elapsed_s >= self.max_seconds or statistics.estimate([samples_s]).half_width <= self.target_half_width


@dataclass(frozen=True)
class Cell:
    """One (machine, model, workload, engine, precision, batch size), with all that decides its figures, in one round.

    model: name, plus ``architecture`` and ``seed``, or ``checkpoint`` and ``fingerprint``, or ``hub`` and ``revision``.
    engine: in engines.ENGINES, or the name of a variant. options: of a variant, its engine among them as ``engine``.
    round: from 1. Each round of a cell is measured in a process of its own and has a record of its own; how many there
    are decides nothing about each.
    environment: the software that it is measured in: ``name`` and ``lock``, the digest of its lock file; empty for the
    environment that Snakemake runs in.
    """

    machine: str
    device: str
    model: Mapping[str, Any]
    workload: Workload
    engine: str
    precision: str
    batch_size: int
    memory_limit_bytes: int | None
    measurement: Measurement
    round: int = 1
    measure_version: int = MEASURE_VERSION
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def base_engine(self) -> str:
        """The engine in engines.ENGINES: its own, or the one that it is a variant of."""
        return self.options.get("engine", self.engine)

    @property
    def column(self) -> Column:
        """The column of the tables that it is in."""
        return Column.of(self)

    @property
    def threads(self) -> int | None:
        """Of its measurement."""
        return self.measurement.threads

    @property
    def path(self) -> str:
        """Where the record of this cell is, relative to the working directory."""
        return record_path(
            machine=self.machine,
            column=self.column.path,
            batch=f"{self.batch_size}.round-{self.round}" if self.round > 1 else self.batch_size,
        )

    @property
    def label(self) -> str:
        """For a person: ``bloom-1b3 prompt9-new100 hf bf16 batch 8 round 2``."""
        again = f" round {self.round}" if self.round > 1 else ""
        return f"{batch_label(self.column.label, self.batch_size)}{again}"

    @property
    def first_round(self) -> Self:
        """The same cell in its first round, whose record has the shortest name."""
        return replace(self, round=1)

    def to_json(self) -> str:
        """One line, keys sorted: equal cells give equal text."""
        return json_line(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of to_json, for a cell to be measured. Raises CellError, also for another measure_version."""
        cell = cls.from_document(parsed(text))
        if cell.measure_version != MEASURE_VERSION:
            raise CellError(
                f"measure_version is {cell.measure_version!r}; this program measures version {MEASURE_VERSION}"
            )
        return cell

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """A cell from JSON, as to_json or a record has it. Raises CellError."""
        values = exact_fields(cls, document, "a cell")
        model = values["model"]
        if not isinstance(model, dict) or "name" not in model:
            raise CellError(f"model is {model!r}; allowed: a mapping with name")
        check_environment(values)
        return cls(
            **values
            | {
                "workload": Workload(**exact_fields(Workload, values["workload"], "workload")),
                "measurement": Measurement(**exact_fields(Measurement, values["measurement"], "measurement")),
            }
        )


#: Fields that came later. They are left out where they are empty, so that older records are those of the same cells.
_LATER = {"options", "variants", "timeline", "timeline_trace", "environment", "environments", "engine_environments"}

# One for all: made anew for each cell it takes longer than the text.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=lambda value: _fields(value))


def json_line(value: Any) -> str:
    """A dataclass as one line of JSON, keys sorted: equal values give equal text."""
    return _ENCODER.encode(_fields(value))


def parsed(text: str) -> Any:
    """What a text says as JSON. Raises CellError."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise CellError(f"not JSON: {error}") from None


def exact_fields(cls: type, document: Any, what: str) -> dict[str, Any]:
    """The fields of a dataclass from a mapping that has them all and no other. Raises CellError."""
    names = {field.name for field in fields(cls)}
    if not isinstance(document, dict) or document.keys() | (names & _LATER) != names:
        got = sorted(document) if isinstance(document, dict) else repr(document)
        raise CellError(f"{what} has exactly the keys {sorted(names)}, this has {got}")
    return document


def check_environment(values: Mapping[str, Any]) -> None:
    """Raises CellError where the environment of a cell or study as JSON is none."""
    environment = values.get("environment", {"name": "", "lock": ""})
    named = isinstance(environment, dict) and environment.keys() == {"name", "lock"}
    if not named or not all(isinstance(value, str) for value in environment.values()):
        raise CellError(f"environment is {environment!r}; allowed: a mapping with name and lock, texts")


@dataclass(frozen=True)
class Experiment:
    """A validated configuration for one machine. Its cells are the product of its axes.

    rounds: how often the whole grid is measured. device_name: a part of the name of the device that cells are measured
    on; None: any device.
    max_batch, divergence: whether these studies are done for each column of the tables. max_batch_tolerance_percent:
    see ColumnStudy.
    mixed_provenance: ``refuse`` records whose figures cannot share a column, or ``split`` them. baselines: paths
    by name. variants: the options of engines that are variants, by name (Cell.options). timeline: the batch sizes whose
    timelines are done; timeline_trace: see TimelineStudy. environments: as Cell.environment has them; none where there
    is only the one that Snakemake runs in. engine_environments: the same of engines that have one of their own, by
    name.
    """

    machine: str
    device: str
    models: tuple[Mapping[str, Any], ...]
    workloads: tuple[Workload, ...]
    engines: tuple[str, ...]
    precisions: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    memory_limit_bytes: int | None
    measurement: Measurement
    rounds: int = 1
    max_batch: bool = False
    max_batch_tolerance_percent: float = 2
    divergence: bool = False
    mixed_provenance: str = "refuse"
    baselines: Mapping[str, str] = field(default_factory=dict)
    device_name: str | None = None
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    timeline: tuple[int, ...] = ()
    timeline_trace: bool = False
    environments: tuple[Mapping[str, str], ...] = ()
    engine_environments: Mapping[str, Sequence[Mapping[str, str]]] = field(default_factory=dict)

    def base_engine(self, engine: str) -> str:
        """The engine in engines.ENGINES that one of the experiment is, or is a variant of."""
        return self.variants.get(engine, {}).get("engine", engine)

    def cells(self) -> Iterator[Cell]:
        """All cells in the order of the tables: round by round, each as configured, batch size last."""
        everywhere = self.environments or ({},)
        software = [
            (engine, environment)
            for engine in self.engines
            for environment in self.engine_environments.get(engine, everywhere)
        ]
        rounds = range(1, self.rounds + 1)
        axes = (rounds, self.models, self.workloads, software, self.precisions, self.batch_sizes)
        for number, model, workload, (engine, environment), precision, batch_size in product(*axes):
            yield Cell(
                machine=self.machine,
                device=self.device,
                model=model,
                workload=workload,
                engine=engine,
                precision=precision,
                batch_size=batch_size,
                memory_limit_bytes=self.memory_limit_bytes,
                measurement=self.measurement,
                round=number,
                options=self.variants.get(engine, {}),
                environment=environment,
            )

    @property
    def path(self) -> Path:
        """The file that jobs about the whole experiment read it from: it can be too long for a command line."""
        return Path(".snakemake", "experiments", f"{self.machine}.json")

    def save(self) -> None:
        """Write that file. Raises OSError."""
        text = self.to_json() + "\n"
        if not self.path.exists() or self.path.read_text() != text:
            files.write(text, self.path)

    def to_json(self) -> str:
        """One line, keys sorted: equal experiments give equal text."""
        return json_line(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of to_json. Raises CellError."""
        values = exact_fields(cls, parsed(text), "an experiment")
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        try:
            workloads = tuple(Workload(**workload) for workload in values["workloads"])
            return cls(**values | lists | {"workloads": workloads, "measurement": Measurement(**values["measurement"])})
        except TypeError as error:
            raise CellError(f"not an experiment: {error}") from None


def in_measuring_order(cells: Mapping[str, Cell]) -> list[str]:
    """The paths of the cells of one machine in the order in which they are measured. cells: in that of the tables.

    That is round by round, so that a drift of the machine hits all alike. Those that differ in engine and environment
    alone follow each other, because they are compared; in every other round the other way round, so that none is always
    first.
    """
    alike: dict[tuple[Any, ...], list[str]] = {}
    for path, cell in cells.items():
        key = (cell.round, cell.model["name"], cell.workload, cell.precision, cell.batch_size)
        alike.setdefault(key, []).append(path)
    return [path for (number, *_), paths in alike.items() for path in (paths if number % 2 else reversed(paths))]


@dataclass(frozen=True)
class Watch:
    """How a measurement is watched. None of it decides a figure.

    timeout_s: for each process of a cell. sample_hz: how often device and machine are looked at, per second.
    exclusive: ``warn`` or ``fail`` where others use the GPU at the start. device_name: as in Experiment; "" is any.
    """

    timeout_s: float = 3600
    sample_hz: float = 2
    exclusive: str = "warn"
    device_name: str = ""


def record_path(*, machine: str, column: str, batch: int | str) -> str:
    """Where the record of a cell is; the output of rule measure. batch: its size, from round 2 on with the round."""
    return f"results/{machine}/{column}/batch-{batch}.json"


def log_path(path: str) -> Path:
    """The log of the job with this output; the log of rule measure and of the studies."""
    return Path("logs", *Path(path).with_suffix(".log").parts[1:])


def difference(wanted: Mapping[str, Any], actual: Mapping[str, Any]) -> str:
    """What differs between two cells as JSON, leaf by leaf: ``measurement.cycles was 3, is now 5``."""
    old, new = _leaves(actual), _leaves(wanted)
    keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    return "; ".join(f"{key} was {old.get(key, 'absent')!r}, is now {new.get(key, 'absent')!r}" for key in keys)


def as_document(subject: Any) -> dict[str, Any]:
    """A cell or study as mappings, to be compared with one from JSON."""
    return {name: as_document(value) if is_dataclass(value) else value for name, value in _fields(subject).items()}


def _fields(value: Any) -> dict[str, Any]:
    return {name: of_field for name, of_field in vars(value).items() if of_field or name not in _LATER}


def _leaves(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, item in value.items():
        leaves |= _leaves(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return leaves
