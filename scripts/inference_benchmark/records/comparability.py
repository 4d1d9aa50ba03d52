"""Which facts must agree for cells to share a table, and how cells are split or refused if they do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from inference_benchmark.engines import PACKAGES
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.environments import name_of
from inference_benchmark.experiment.studies import Study
from inference_benchmark.records.record import AnyRecord, Record

_PACKAGES = {name: (package.compared_in, name) for name, package in PACKAGES.items() if package.compared_in}
#: Facts of a record: (part of the record, key).
_FACTS = {
    "device": ("device", "name"),
    "driver": ("device", "driver"),
    "device memory (bytes)": ("device", "memory_bytes"),
    "CPU": ("host", "cpu"),
    "usable CPUs": ("host", "usable_cpus"),
    "CPU limit": ("host", "cpu_limit"),
    "threads": ("model", "threads"),
    "CUDA": ("model", "cuda"),
    "float32 matmul precision": ("model", "float32_matmul_precision"),
    "TF32": ("model", "tf32"),
    **_PACKAGES,
    "host": ("host", "name"),
    "system": ("host", "system"),
    "container": ("host", "container"),
    "host memory (bytes)": ("host", "memory_bytes"),
    "memory limit": ("host", "memory_limit"),
    "attention": ("model", "attention"),
    "python": ("software", "python"),
    "numpy": ("software", "numpy"),
    "commit": ("git", "commit"),
    "uncommitted changes": ("git", "dirty"),
}

#: Facts that need not agree. Nodes of a cluster are alike under many names; kernel, Python and numpy have no
#: measurable part in a timed call; memory decides whether a cell fits, which its record explains; attention
#: belongs to the model; a change of how cells are measured raises MEASURE_VERSION, whatever the commit.
_FREE = {
    "host", "system", "container", "host memory (bytes)", "memory limit", "attention", "python", "numpy",
    "commit", "uncommitted changes",
}  # fmt: skip

#: Facts of the software that cells are measured in: they have to agree within each environment.
_SOFTWARE = {"CUDA", "float32 matmul precision", "TF32", *_PACKAGES}

_ENVIRONMENT = "environment "
#: How many cells are named with a disagreement.
_NAMED = 3


def facts(records: Sequence[AnyRecord]) -> dict[str, list[Any]]:
    """Every fact about hardware, software and settings with its value in each record; None where it is unknown."""
    by_name = {
        name: [(getattr(record, part) or {}).get(key) for record in records] for name, (part, key) in _FACTS.items()
    }
    for index, record in enumerate(records):
        if "matmul_precision" in (record.model or {}).get("options", {}):  # a choice of the variant, as its name says
            by_name["float32 matmul precision"][index] = by_name["TF32"][index] = None
    for name in dict.fromkeys(name for record in records for name in record.variables):
        by_name[f"{_ENVIRONMENT}{name}"] = [record.variables.get(name) for record in records]
    return {
        name: [str(value) if isinstance(value, dict) else value for value in values] for name, values in by_name.items()
    }


def all_facts(records: Sequence[AnyRecord]) -> dict[str, list[Any]]:
    """Every value that each fact takes in the records; several where they disagree."""
    distinct = {name: [v for v in dict.fromkeys(values) if v is not None] for name, values in facts(records).items()}
    return {name: values for name, values in distinct.items() if values}


def environments(records: Sequence[Record]) -> dict[str, dict[str, list[Any]]]:
    """all_facts about the software of each environment."""
    by_name: dict[str, list[Record]] = {}
    for record in records:
        by_name.setdefault(name_of(record.cell.environment), []).append(record)
    return {
        environment: {name: values for name, values in all_facts(of_it).items() if name in _SOFTWARE | {"python"}}
        for environment, of_it in by_name.items()
    }


def facts_that_must_agree(record: AnyRecord) -> dict[str, Any]:
    """The facts of one record that must agree with those of others, as far as it knows them."""
    return {name: values[0] for name, values in facts([record]).items() if _must_agree(name, values[0])}


def facts_about(study: Study, known: Mapping[str, Any], cell: Cell) -> Mapping[str, Any]:
    """The facts in which a cell has to agree with a study. If the study was done in another environment, as ceilings
    are, these are not about software. known: facts_that_must_agree of the study."""
    if study.setup.environment == cell.environment:
        return known
    return {name: value for name, value in known.items() if name not in _SOFTWARE}


def disagreements(records: Sequence[Record]) -> list[str]:
    """One line per table and fact that must agree and does not: its values, and the cells in the minority."""
    lines = []
    for where, indices, is_about in _alike(records):
        for name, values in _differing([records[i] for i in indices], is_about).items():
            common, *others = Counter(values.values()).most_common()
            parts = [f"{_show(common[0])} in {common[1]} cells"]
            for value, count in others:
                paths = [records[indices[i]].cell.path for i, v in values.items() if v == value]
                more = f" and {count - _NAMED} more" if count > _NAMED else ""
                parts.append(f"{_show(value)} in {', '.join(islice(paths, _NAMED))}{more}")
            lines.append(f"{where}: {name} differs: {'; '.join(parts)}")
    if lines:
        lines.append("measure these cells again, or set mixed_provenance: split to give them columns of their own")
    return lines


def disagreeing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The facts in which two records do not agree. ours, theirs: their facts_that_must_agree."""
    return {
        name: (ours.get(name, "not set"), theirs.get(name, "not set"))
        for name in (() if ours == theirs else sorted(shared(ours, theirs)))
        if ours.get(name, "not set") != theirs.get(name, "not set")
    }


def shared(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> set[str]:
    """The facts that can be compared: those that both know, and environment variables that one of them set."""
    return ours.keys() & theirs.keys() | {n for n in ours.keys() | theirs.keys() if n.startswith(_ENVIRONMENT)}


def splits(records: Sequence[Record]) -> list[str]:
    """For each record the facts in which its table differs (``torch 2.12.0, driver 570``); "" where all agree."""
    names: list[list[str]] = [[] for _ in records]
    for _, indices, is_about in _alike(records):
        for name, values in _differing([records[i] for i in indices], is_about).items():
            for position, value in values.items():
                names[indices[position]].append(f"{name} {_show(value)}")
    return [", ".join(apart) for apart in names]


def _alike(records: Sequence[Record]) -> Iterator[tuple[str, list[int], Callable[[str], bool]]]:
    """(name, indices, is_about) of each group of records that have to agree in the facts for which is_about is true.

    A table holds one model and workload. If it has several environments, software has to agree within each only.
    """
    tables: dict[str, dict[str, list[int]]] = {}
    for index, record in enumerate(records):
        table = tables.setdefault(f"{record.cell.model['name']} {record.cell.workload.name}", {})
        table.setdefault(name_of(record.cell.environment), []).append(index)
    for where, environments in tables.items():
        together = sorted(index for indices in environments.values() for index in indices)
        if len(environments) == 1:
            yield where, together, lambda _: True
            continue
        yield where, together, lambda name: name not in _SOFTWARE
        for environment, indices in environments.items():
            yield f"{where} in {environment}", indices, lambda name: name in _SOFTWARE


def _differing(records: Sequence[Record], is_about: Callable[[str], bool]) -> dict[str, dict[int, Any]]:
    """The facts that must agree and do not: for each, its value by the record's position."""
    differing = {}
    for name, values in ((name, values) for name, values in facts(records).items() if is_about(name)):
        if name.startswith(_ENVIRONMENT):  # a variable that is set in one record only makes them differ
            values = ["not set" if value is None else value for value in values]
        by_position = {index: value for index, value in enumerate(values) if _must_agree(name, value)}
        if len(set(by_position.values())) > 1:
            differing[name] = by_position
    return differing


def _must_agree(name: str, value: Any) -> bool:
    """Whether a fact must agree. A cell that ended early does not know the facts in ``model``."""
    return name not in _FREE and (value is not None or _FACTS.get(name, ("model",))[0] != "model")


def _show(value: Any) -> str:
    return "none" if value is None else str(value)
