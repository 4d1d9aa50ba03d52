"""What is found out beside the cells: the machine's ceilings, and of each column of the tables the largest batch
that fits and how its answers differ. Each is one file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from inference_benchmark.engines import ENGINES
from inference_benchmark.experiment.cells import Cell, CellError, Experiment, column_folder, exact_fields, workload_name

#: Raised whenever a study of this kind is done in another way, so that older ones count as stale.
VERSIONS = {"ceilings": 1, "max-batch": 1, "divergence": 1}


class _Study:
    """Shared by the dataclasses below: text and back."""

    kind: str
    version: int

    def to_json(self) -> str:
        """One line, keys sorted: equal studies give equal text."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str):
        """The inverse of to_json. Raises CellError."""
        values = exact_fields(cls, text, "a study")
        if values["version"] != VERSIONS.get(values["kind"]):
            raise CellError(f"there is no version {values['version']!r} of a study named {values['kind']!r}")
        return cls(**values)


@dataclass(frozen=True)
class Ceilings(_Study):
    """What a machine does at its best. threads: None is all the process may use."""

    machine: str
    device: str
    threads: int | None
    kind: str = "ceilings"
    version: int = VERSIONS["ceilings"]

    @property
    def path(self) -> str:
        return ceilings_path(self.machine)

    label = "ceilings"
    memory_limit_bytes = None


@dataclass(frozen=True)
class ColumnStudy(_Study):
    """A question about a column of the tables: all cells that differ in batch size alone.

    kind: ``max-batch`` or ``divergence``. The rest as in Cell; seed and threads from its measurement.
    """

    kind: str
    version: int
    machine: str
    device: str
    model: Mapping[str, Any]
    workload: Mapping[str, int]
    engine: str
    precision: str
    memory_limit_bytes: int | None
    seed: int
    threads: int | None

    @classmethod
    def of(cls, kind: str, cell: Cell) -> ColumnStudy:
        """The study of the column that a cell is in. Answers do not depend on a limit of memory."""
        return cls(
            kind=kind,
            version=VERSIONS[kind],
            machine=cell.machine,
            device=cell.device,
            model=cell.model,
            workload=cell.workload,
            engine=cell.engine,
            precision=cell.precision,
            memory_limit_bytes=cell.memory_limit_bytes if kind == "max-batch" else None,
            seed=cell.measurement["seed"],
            threads=cell.measurement["threads"],
        )

    @property
    def path(self) -> str:
        workload = workload_name(self.workload)
        return (
            f"{column_folder(self.machine, self.model['name'], workload, self.engine, self.precision)}/{self.kind}.json"
        )

    @property
    def label(self) -> str:
        """For a person: ``bloom-1b3 prompt9-new100 hf bf16 max-batch``."""
        return f"{self.model['name']} {workload_name(self.workload)} {self.engine} {self.precision} {self.kind}"


#: What one job measures and one file answers.
Subject = Cell | Ceilings | ColumnStudy


def studies(experiment: Experiment) -> Iterator[Ceilings | ColumnStudy]:
    """What an experiment asks for beside its cells."""
    wanted = {"ceilings": True, "max-batch": experiment.max_batch, "divergence": experiment.divergence}
    return (study for study in possible_studies(experiment) if wanted[study.kind])


def possible_studies(experiment: Experiment) -> Iterator[Ceilings | ColumnStudy]:
    """What can be found out beside the cells. Where it has been, it is used, asked for or not.

    An engine that makes up its times has no ceiling, no answers of its own, and only made-up memory.
    """
    if any(ENGINES[engine].needs_weights for engine in experiment.engines):
        yield Ceilings(experiment.machine, experiment.device, experiment.measurement["threads"])
    columns = list(replace(experiment, batch_sizes=experiment.batch_sizes[:1]).cells())  # a cell of each
    for kind in ("max-batch", "divergence"):
        for cell in columns:
            if kind == "max-batch" or ENGINES[cell.engine].needs_weights:
                yield ColumnStudy.of(kind, cell)


def about(cell: Cell) -> dict[str, str]:
    """Where the studies are that speak of a cell, by kind."""
    columns = (ColumnStudy.of(kind, cell) for kind in ("max-batch", "divergence"))
    return {"ceilings": ceilings_path(cell.machine), **{study.kind: study.path for study in columns}}


def ceilings_path(machine: str) -> str:
    """Where the ceilings of a machine stand; the output of rule ceilings."""
    return f"results/{machine}/ceilings.json"
