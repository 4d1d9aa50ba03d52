"""Which facts must agree for cells to share a table, and how cells are split or refused if they do not."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from inference_benchmark.engines import PACKAGES
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.environments import name_of
from inference_benchmark.experiment.studies import Study
from inference_benchmark.machine import variables
from inference_benchmark.records.record import AnyRecord, Record

_PACKAGES = {name: (package.compared_in, name) for name, package in PACKAGES.items() if package.compared_in}
#: Facts that must agree: (part of the record, key).
_COMPARED = {
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
}
#: Facts that need not agree. Nodes of a cluster are alike under many names; kernel, Python and numpy have no
#: measurable part in a timed call; memory decides whether a cell fits, which its record explains; attention
#: belongs to the model; a change of how cells are measured raises MEASURE_VERSION, whatever the commit.
_FREE = {
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
    "commit unknown": ("git", "unknown"),
}
#: Facts of the software that cells are measured in: they have to agree within each environment.
_SOFTWARE = {"CUDA", "float32 matmul precision", "TF32", *_PACKAGES}

_ENVIRONMENT, _LINKS = "environment ", "links between "


def facts(records: Sequence[AnyRecord]) -> dict[str, list[Any]]:
    """Every fact about hardware, software and settings with its value in each record; None where it is unknown."""
    places = {**_COMPARED, **_FREE}.items()
    by_name = {name: [(getattr(record, part) or {}).get(key) for record in records] for name, (part, key) in places}
    for index, record in enumerate(records):
        if "matmul_precision" in (record.model or {}).get("options", {}):  # a choice of the variant, as its name says
            by_name["float32 matmul precision"][index] = by_name["TF32"][index] = None
    for index, record in enumerate(records):
        if links := record.device.get("links"):  # how many GPUs there are is a choice of the variant, too
            among = f"{_LINKS}{len(record.device['devices'])} GPUs"
            by_name.setdefault(among, [None] * len(records))[index] = ", ".join(links)
    for name in dict.fromkeys(name for record in records for name in record.variables):
        by_name[f"{_ENVIRONMENT}{name}"] = [record.variables.get(name) for record in records]
    return {name: [str(each) if isinstance(each, dict) else each for each in by_name[name]] for name in by_name}


def all_facts(records: Sequence[AnyRecord]) -> dict[str, list[Any]]:
    """Every value that each fact takes in the records; several where they disagree."""
    distinct = {name: [v for v in dict.fromkeys(values) if v is not None] for name, values in facts(records).items()}
    return {name: values for name, values in distinct.items() if values}


def environments(records: Sequence[Record]) -> dict[str, dict[str, list[Any]]]:
    """all_facts about the software of each environment."""
    by_name: dict[str, list[Record]] = {}
    for record in records:
        by_name.setdefault(name_of(record.cell.environment), []).append(record)
    known = {name: all_facts(of_it) for name, of_it in by_name.items()}
    shown = _SOFTWARE | {"python"}
    return {name: {fact: each[fact] for fact in each if fact in shown} for name, each in known.items()}


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
    for where, name, values in _differing(records):
        common, *others = Counter(values.values()).most_common()
        parts = [f"{_show(common[0])} in {common[1]} cells"]
        for value, count in others:
            named = [records[index].cell.path for index, each in values.items() if each == value][:3]
            more = f" and {count - len(named)} more" if count > len(named) else ""
            parts.append(f"{_show(value)} in {', '.join(named)}{more}")
        lines.append(f"{where}: {name} differs: {'; '.join(parts)}")
    if lines:
        lines.append("measure these cells again, or set mixed_provenance: split to give them columns of their own")
    return lines


def disagreeing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The facts in which two records do not agree. ours, theirs: their facts_that_must_agree."""
    names = () if ours == theirs else sorted(shared(ours, theirs))
    both = {name: (ours.get(name, "not set"), theirs.get(name, "not set")) for name in names}
    return {name: (our, their) for name, (our, their) in both.items() if our != their}


def shared(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> set[str]:
    """The facts that can be compared: those that both know, and environment variables that one of them set."""
    return ours.keys() & theirs.keys() | {n for n in ours.keys() | theirs.keys() if n.startswith(_ENVIRONMENT)}


def splits(records: Sequence[Record]) -> list[str]:
    """For each record the facts in which its table differs (``torch 2.12.0, driver 570``); "" where all agree."""
    names: list[list[str]] = [[] for _ in records]
    for _, name, values in _differing(records):
        for index, value in values.items():
            names[index].append(f"{name} {_show(value)}")
    return [", ".join(apart) for apart in names]


def _alike(records: Sequence[Record]) -> Iterator[tuple[str, list[int], Callable[[str], bool]]]:
    """(name, indices, is_about) of each group of records that have to agree in the facts for which is_about is true. A
    table holds one model and workload. If it has several environments, software has to agree within each only."""
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


def _differing(records: Sequence[Record]) -> Iterator[tuple[str, str, dict[int, Any]]]:
    """(group, fact, its value by the record's index) for each fact that must agree within a group and does not."""
    for where, indices, is_about in _alike(records):
        for name, values in facts([records[index] for index in indices]).items():
            if not is_about(name):
                continue
            if name.startswith(_ENVIRONMENT):  # a variable that is set in one record only makes them differ
                values = ["not set" if value is None else value for value in values]
            by_index = {index: value for index, value in zip(indices, values, strict=True) if _must_agree(name, value)}
            if len(set(by_index.values())) > 1:
                yield where, name, by_index


def _must_agree(name: str, value: Any) -> bool:
    """Whether a fact must agree. A cell that ended early does not know the facts in ``model``."""
    if name.startswith(_ENVIRONMENT):
        return variables.must_agree(name.removeprefix(_ENVIRONMENT))
    return name not in _FREE and (value is not None or _COMPARED.get(name, ("model",))[0] != "model")


def _show(value: Any) -> str:
    return "none" if value is None else str(value)
