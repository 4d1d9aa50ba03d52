"""Cells: the unit of the benchmark, the experiment that spans a grid of them, and how they are watched."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from inference_benchmark import files

#: Raised whenever the way a cell is measured changes, so that older records count as stale.
MEASURE_VERSION = 3

#: What the mappings inside a cell hold at the least.
_PARTS = {
    "model": {"name"},
    "workload": {"prompt_tokens", "new_tokens"},
    "measurement": {
        "warmup_tolerance_percent", "max_warmup_calls", "min_cycles", "min_seconds", "target_half_width_percent",
        "max_seconds", "processes", "seed", "threads",
    },
}  # fmt: skip


class CellError(ValueError):
    """A text that does not describe a cell; the message says why."""


@dataclass(frozen=True)
class Cell:
    """One (machine, model, workload, engine, precision, batch size), with all that decides its figures.

    model: name, plus ``architecture`` and ``seed``, or ``checkpoint`` and ``fingerprint``, or ``hub``
    and ``revision``. workload: ``prompt_tokens`` and ``new_tokens`` of every row.
    measurement: as in config.yaml; threads None is all the process may use.
    """

    machine: str
    device: str
    model: Mapping[str, Any]
    workload: Mapping[str, int]
    engine: str
    precision: str
    batch_size: int
    memory_limit_bytes: int | None
    measurement: Mapping[str, Any]
    measure_version: int = MEASURE_VERSION

    @property
    def path(self) -> str:
        """Where the record of this cell stands, relative to the working directory."""
        return record_path(
            machine=self.machine,
            model=self.model["name"],
            workload=workload_name(self.workload),
            engine=self.engine,
            precision=self.precision,
            batch_size=self.batch_size,
        )

    @property
    def label(self) -> str:
        """For a person: ``bloom-1b3 prompt9-new100 hf bf16 batch 8``."""
        name = workload_name(self.workload)
        return f"{self.model['name']} {name} {self.engine} {self.precision} batch {self.batch_size}"

    def to_json(self) -> str:
        """One line, keys sorted: equal cells give equal text."""
        return json.dumps(vars(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Cell:
        """The inverse of to_json. Raises CellError."""
        values = exact_fields(cls, text, "a cell")
        for name, keys in _PARTS.items():
            if not isinstance(values[name], dict) or not keys <= set(values[name]):
                raise CellError(f"{name} is {values[name]!r}; allowed: a mapping with {', '.join(sorted(keys))}")
        if values["measure_version"] != MEASURE_VERSION:
            raise CellError(
                f"measure_version is {values['measure_version']!r}, this program measures version {MEASURE_VERSION}"
            )
        return cls(**values)


def exact_fields(cls: type, text: str, what: str) -> dict[str, Any]:
    """The fields of a dataclass from JSON that has them all and no other. Raises CellError."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise CellError(f"not JSON: {error}") from None
    names = {field.name for field in fields(cls)}
    if not isinstance(values, dict) or set(values) != names:
        found = sorted(values) if isinstance(values, dict) else type(values).__name__
        raise CellError(f"{what} has exactly the keys {sorted(names)}, this has {found}")
    return values


@dataclass(frozen=True)
class Experiment:
    """A validated configuration for one machine: the product of its axes are the cells.

    device_name: a text that the name of the device holds which cells are measured on; None: any may be.
    max_batch, divergence: whether these studies are done for each column of the tables.
    mixed_provenance: ``refuse`` or ``split`` records whose figures cannot stand in one column. baselines: paths of
    what stands beside the cells, by name.
    """

    machine: str
    device: str
    models: tuple[Mapping[str, Any], ...]
    workloads: tuple[Mapping[str, int], ...]
    engines: tuple[str, ...]
    precisions: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    memory_limit_bytes: int | None
    measurement: Mapping[str, Any]
    max_batch: bool = False
    divergence: bool = False
    mixed_provenance: str = "refuse"
    baselines: Mapping[str, str] = field(default_factory=dict)
    device_name: str | None = None

    def cells(self) -> Iterator[Cell]:
        """All cells in the order a person expects to see them measured: as configured, batch size last."""
        for model in self.models:
            for workload in self.workloads:
                for engine in self.engines:
                    for precision in self.precisions:
                        for batch_size in self.batch_sizes:
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
                            )

    @property
    def path(self) -> Path:
        """Where it is written for the jobs that are about all of it: it can be longer than a command line."""
        return Path(".snakemake", "experiments", f"{self.machine}.json")

    def save(self) -> None:
        """Write it there. Raises OSError."""
        text = self.to_json() + "\n"
        if not self.path.exists() or self.path.read_text() != text:
            files.write(text, self.path)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Experiment:
        """The inverse of to_json. Raises CellError."""
        try:
            return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()})
        except (ValueError, TypeError, AttributeError) as error:
            raise CellError(f"not an experiment: {error}") from None


@dataclass(frozen=True)
class Watch:
    """How a measurement is watched: none of it decides a figure.

    timeout_s: for each process of a cell. sample_hz: looks at device and machine. exclusive: ``warn`` or
    ``fail`` where others use the GPU at the start. device_name: as in Experiment; "" is any.
    """

    timeout_s: float = 3600
    sample_hz: float = 2
    exclusive: str = "warn"
    device_name: str = ""


def record_path(*, machine: str, model: str, workload: str, engine: str, precision: str, batch_size: int | str) -> str:
    """Where the record of a cell stands; the output of rule measure."""
    return f"{column_folder(machine, model, workload, engine, precision)}/batch-{batch_size}.json"


def log_path(path: str) -> Path:
    """The log of the job whose output this is; the log of rule measure and of the studies."""
    return Path("logs", *Path(path).with_suffix(".log").parts[1:])


def column_folder(machine: str, model: str, workload: str, engine: str, precision: str) -> str:
    """Where all that belongs to one column of the tables stands."""
    return f"results/{machine}/{model}/{workload}/{engine}/{precision}"


def workload_name(workload: Mapping[str, int]) -> str:
    """The workload as a part of paths: other token counts are another place."""
    return f"prompt{workload['prompt_tokens']}-new{workload['new_tokens']}"


def difference(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """What differs between two cells, leaf by leaf: ``measurement.cycles is 3, now 5``."""
    old, new = _leaves(found), _leaves(wanted)
    keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    return "; ".join(f"{key} was {old.get(key, 'absent')!r}, is now {new.get(key, 'absent')!r}" for key in keys)


def _leaves(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, item in value.items():
        leaves |= _leaves(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return leaves
