"""Cells, the unit of the benchmark: how one is described, and where its record is."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from inference_benchmark.analysis import statistics
from inference_benchmark.engines.options import chosen, gpus_of
from inference_benchmark.experiment.as_json import AsJson, CellError
from inference_benchmark.experiment.environments import name_of
from inference_benchmark.results.column import CURRENT, TEXT, Column, batch_label, workload_name

#: The name of a cell's record without its ending, as record_path makes it: batch size, and from round 2 on the round.
RECORD_STEM = r"batch-(\d+)(?:\.round-(\d+))?"
#: Raised whenever the way a cell is measured changes, so that older records count as stale.
MEASURE_VERSION = 4


@dataclass(frozen=True)
class Workload:
    """Lengths of every row, and where prompts are from. Raises CellError where a length is below 1."""

    prompt_tokens: int  #: Tokens of each prompt.
    new_tokens: int  #: Tokens generated per row, exactly.
    #: Name of the text that prompts are windows of. Absent where they are random token ids.
    prompts: str = ""
    prompts_sha256: str = ""  #: Digest of that text, as far as it is read.

    def __post_init__(self) -> None:
        for name in ("prompt_tokens", "new_tokens"):
            _check_integer(name, getattr(self, name), 1)

    @property
    def name(self) -> str:
        """As a part of paths: ``prompt9-new100``. Other lengths go to another folder, and so do prompts from text."""
        return workload_name(self.prompt_tokens, self.new_tokens, self.prompts and TEXT)


@dataclass(frozen=True)
class Measurement:
    """How a cell is measured in each round: the ``measurement`` settings of config.yaml, explained in docs/config.md.
    None as ``threads`` is hardware.default_threads. Raises CellError where a setting is out of range."""

    warmup_tolerance_percent: float
    max_warmup_calls: int
    min_cycles: int
    min_seconds: float
    target_half_width_percent: float
    max_seconds: float
    seed: int
    threads: int | None
    long_call_seconds: float = 0

    def __post_init__(self) -> None:
        least = {"max_warmup_calls": 2, "min_cycles": 2, "seed": 0, "threads": 1}
        for name, bound in least.items():
            if name != "threads" or self.threads is not None:
                _check_integer(f"measurement.{name}", getattr(self, name), bound)
        percents = "warmup_tolerance_percent", "target_half_width_percent"
        for name in (*percents, "min_seconds", "max_seconds", "long_call_seconds"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value <= sys.float_info.max:
                raise CellError(f"measurement.{name} is {value!r}; allowed: a number >= 0")

    @property
    def warmup_tolerance(self) -> float:
        """By how much successive warm-up calls may differ, as a part of the shorter one."""
        return self.warmup_tolerance_percent / 100

    @property
    def target_half_width(self) -> float:
        """The half width of the 95 % interval to reach, as a part of the mean."""
        return self.target_half_width_percent / 100

    def fewest_calls(self, call_s: float) -> int:
        """How many calls that take so long may be enough: min_cycles, or two long ones."""
        return 2 if 0 < self.long_call_seconds <= call_s else self.min_cycles

    def is_enough(self, samples_s: list[float]) -> bool:
        """Whether a process has repeated its call often enough: min_cycles and min_seconds, then until the
        interval is narrow enough or max_seconds are over. Two long calls are enough if their interval is."""
        n_calls, elapsed_s = len(samples_s), math.fsum(samples_s)
        if n_calls < 2 or n_calls < self.fewest_calls(elapsed_s / n_calls) or elapsed_s < self.min_seconds:
            return False
        is_over = n_calls >= self.min_cycles and elapsed_s >= self.max_seconds
        return is_over or statistics.estimate([samples_s]).half_width <= self.target_half_width


@dataclass(frozen=True, kw_only=True)
class ColumnSettings(AsJson):
    """What an engine is loaded for: what the cells of one column have in common, and the studies of it. Raises
    CellError where model, options or environment is no such mapping."""

    machine: str
    device: str
    #: Its name, plus architecture and seed, or fingerprint of a checkpoint, or hub and revision.
    model: Mapping[str, Any]
    workload: Workload
    engine: str  #: One of engines.ENGINES, or the name of a variant.
    precision: str
    memory_limit_bytes: int | None
    #: What a variant of an engine chooses, and its engine. Absent where the engine is no variant.
    options: Mapping[str, Any] = field(default_factory=dict)
    #: The software that it is measured in: name, and lock, a digest of its lock file. Absent for the environment that
    #: Snakemake runs in.
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.model, dict) or not isinstance(self.model.get("name"), str):
            raise CellError(f"model is {self.model!r}; allowed: a mapping with name")
        object.__setattr__(self, "model", _anywhere(self.model))
        if not isinstance(self.options, dict):
            raise CellError(f"options is {self.options!r}; allowed: a mapping")
        environment = self.environment
        named = isinstance(environment, dict) and environment.keys() == {"name", "lock"}
        if environment != {} and not (named and all(isinstance(value, str) for value in environment.values())):
            raise CellError(f"environment is {environment!r}; allowed: a mapping with name and lock, texts")

    @property
    def base_engine(self) -> str:
        """The engine in engines.ENGINES: its own, or the one that it is a variant of."""
        return self.options.get("engine", self.engine)

    @property
    def gpus(self) -> int:
        """The GPUs that it is measured on; on a CPU 1."""
        return gpus_of(self.options, self.device)

    @property
    def column(self) -> Column:
        workload, engine = self.workload, self.base_engine
        environment = CURRENT if name_of(self.environment) == engine else name_of(self.environment)
        return Column(
            model=self.model["name"],
            prompt_tokens=workload.prompt_tokens,
            new_tokens=workload.new_tokens,
            engine=self.engine,
            precision=self.precision,
            environment=environment,
            base_engine=engine,
            options=tuple((name, str(value)) for name, value in chosen(self.options).items()),
            prompts=workload.prompts and TEXT,
        )

    @property
    def setup(self) -> Self:
        """Where and with what it is measured; of a study too, whatever it is about."""
        return self


@dataclass(frozen=True, kw_only=True)
class Cell(ColumnSettings):
    """One (machine, model, workload, engine, precision, batch size), with all that decides its figures, in one round.

    Each round of a cell is measured in a process of its own and has a record of its own; how many there are decides
    nothing about each. Raises CellError also where batch_size or round is below 1.
    """

    NOUN = "a cell"

    batch_size: int  #: Rows generated at once, from 1.
    measurement: Measurement  #: The measurement settings of config.yaml that concern a single round.
    round: int = 1  #: Which round of the grid, from 1.
    measure_version: int = MEASURE_VERSION

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_integer("batch_size", self.batch_size, 1)
        _check_integer("round", self.round, 1)

    @property
    def threads(self) -> int | None:
        return self.measurement.threads

    @property
    def seed(self) -> int:
        return self.measurement.seed

    @property
    def path(self) -> str:
        """Where the record of this cell is, relative to the working directory."""
        batch = f"{self.batch_size}.round-{self.round}" if self.round > 1 else self.batch_size
        return record_path(machine=self.machine, column=self.column.path, batch=batch)

    @property
    def label(self) -> str:
        """For a person: ``bloom-1b3 prompt9-new100 hf bf16 batch 8 round 2``."""
        label = batch_label(self.column.label, self.batch_size)
        return f"{label} round {self.round}" if self.round > 1 else label

    @property
    def first_round(self) -> Self:
        return replace(self, round=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of to_json, for a cell to be measured. Raises CellError, also for another measure_version."""
        cell = super().from_json(text)
        if (version := cell.measure_version) != MEASURE_VERSION:
            raise CellError(f"measure_version is {version!r}; this program measures version {MEASURE_VERSION}")
        return cell


def without_path(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """A cell or study as JSON, without the path of its checkpoint: older records hold it beside the fingerprint, and
    the same weights may lie anywhere."""
    at = "cell" if "cell" in document else "model"
    if not isinstance(part := document.get(at), dict):
        return document
    return {**document, at: without_path(part) if at == "cell" else _anywhere(part)}


def _anywhere(model: Mapping[str, Any]) -> Mapping[str, Any]:
    return {key: model[key] for key in model if key != "checkpoint"} if "fingerprint" in model else model


def record_path(*, machine: str, column: str, batch: int | str) -> str:
    """Where the record of a cell is; the output of rule measure. batch: its size, from round 2 on with the round."""
    return f"results/{machine}/{column}/batch-{batch}.json"


def first_and_round(path: str) -> tuple[str, int]:
    """The path of a cell's record in round 1, and the round, from the path of its record in any round."""
    first, _, number = path.removesuffix(".json").partition(".round-")
    return (f"{first}.json", int(number)) if number else (path, 1)


def log_path(path: str) -> Path:
    """The log of the job with this output; the log of rule measure and of the studies."""
    return Path("logs", *Path(path).with_suffix(".log").parts[1:])


def _check_integer(name: str, value: Any, least: int) -> None:
    if type(value) is not int or value < least:
        raise CellError(f"{name} is {value!r}; allowed: an integer >= {least}")
