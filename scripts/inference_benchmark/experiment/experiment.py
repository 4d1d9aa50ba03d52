"""The experiment: the grid that cells make up, and the order in which they are measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from inference_benchmark import files
from inference_benchmark.experiment.as_json import AsJson
from inference_benchmark.experiment.cells import Cell, Measurement, Workload


@dataclass(frozen=True)
class Experiment(AsJson):
    """A validated configuration for one machine. Its cells are the product of its axes, but for what is impossible.

    rounds: how often the whole grid is measured. most_rounds: how often a cell is measured at the most, where its
    scatter decides that (experiment/rounds.py); None: no cell more often than the grid. device_name: a part of the
    name of the device to measure on; None: any. max_batch, divergence, batch_invariance: whether these studies are done
    for each column of the tables. quality: the fields of QualityStudy about its text; empty where it is not done.
    max_batch_tolerance_percent: see ColumnStudy. mixed_provenance: ``refuse`` records whose figures
    cannot share a column, or ``split`` them. baselines: paths by name. variants: the options of engines that are
    variants, by name (Cell.options). timeline: the batch sizes whose timelines are done; timeline_trace: see
    TimelineStudy. environments: as Cell.environment has them; none where there is only the one that Snakemake runs
    in. engine_environments: the same of engines that have one of their own, by name. engine_precisions: where not all
    engines have the same, the precisions of each, by name. impossible: combinations without cells, each with its model,
    engine and precision, by name, and the reason.
    """

    NOUN = "an experiment"

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
    most_rounds: int | None = None
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
    engine_precisions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    impossible: tuple[Mapping[str, str], ...] = ()
    quality: Mapping[str, Any] = field(default_factory=dict)
    batch_invariance: bool = False

    def cells(self) -> Iterator[Cell]:
        """The cells of the rounds of the whole grid, in the order of the tables: round by round, each as configured,
        batch size last."""
        return (cell for cell, reason in self._product() if reason is None)

    @cached_property
    def by_path(self) -> Mapping[str, Cell]:
        """The same by the paths of their records."""
        return {cell.path: cell for cell in self.cells()}

    def left_out(self) -> Iterator[tuple[Cell, str]]:
        """What would be cells of the first round if it were not impossible, each with the reason."""
        return ((cell, reason) for cell, reason in replace(self, rounds=1)._product() if reason is not None)

    def _product(self) -> Iterator[tuple[Cell, str | None]]:
        """Every combination of the axes, with the reason if it is impossible."""
        reasons = {(each["model"], each["engine"], each["precision"]): each["reason"] for each in self.impossible}
        shared = {name: getattr(self, name) for name in ("machine", "device", "memory_limit_bytes", "measurement")}
        everywhere = self.environments or ({},)
        columns = [
            {"engine": engine, "environment": where, "options": self.variants.get(engine, {}), "precision": precision}
            for engine in self.engines
            for where in self.engine_environments.get(engine, everywhere)
            for precision in self.engine_precisions.get(engine, self.precisions)
        ]
        rounds = range(1, self.rounds + 1)
        for number, model, workload, column, size in product(
            rounds, self.models, self.workloads, columns, self.batch_sizes
        ):
            cell = Cell(**shared, **column, round=number, model=model, workload=workload, batch_size=size)
            yield cell, reasons.get((model["name"], cell.engine, cell.precision))

    def grid_json(self) -> str:
        """As one text, without what concerns no cell: two experiments with the same text have the same cells."""
        of_others = {
            "max_batch": False,
            "max_batch_tolerance_percent": 0,
            "divergence": False,
            "quality": {},
            "batch_invariance": False,
        }
        of_others |= {"timeline": (), "timeline_trace": False, "mixed_provenance": "refuse", "baselines": {}}
        of_others |= {"device_name": None}
        return replace(self, **of_others).to_json()

    @property
    def path(self) -> Path:
        """The file that jobs about the whole experiment read it from: it can be too long for a command line."""
        return Path(".snakemake", "experiments", f"{self.machine}.json")

    def save(self) -> None:
        """Write that file. Raises OSError."""
        text = self.to_json() + "\n"
        if not self.path.exists() or self.path.read_text(encoding="utf-8") != text:
            files.write(text, self.path)


def in_measuring_order(experiment: Experiment, number: int) -> list[str]:
    """The cells of a machine, by their paths in the first round, in the order in which a round measures them.

    Cells that differ in engine and environment alone are compared, so they follow each other; in reverse in every
    second round, so that none is always first.
    """
    alike: dict[tuple[Any, ...], list[str]] = {}
    for path, cell in experiment.by_path.items():
        if cell.round == 1:
            key = (cell.model["name"], cell.workload, cell.precision, cell.batch_size)
            alike.setdefault(key, []).append(path)
    return [path for paths in alike.values() for path in (paths if number % 2 else reversed(paths))]
