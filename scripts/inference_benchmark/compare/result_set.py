"""Result sets, which can be compared: a folder of records, the summary of a run, or a table of published figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from inference_benchmark import files
from inference_benchmark.analysis import statistics
from inference_benchmark.analysis.figures import Figure
from inference_benchmark.analysis.scatter import Prior
from inference_benchmark.analysis.statistics import Estimate
from inference_benchmark.analysis.yardstick import Speed
from inference_benchmark.cli import ProblemsError
from inference_benchmark.experiment.baselines import records_below, rounds_of
from inference_benchmark.records import comparability, machine_speed, record_file
from inference_benchmark.records.check import RecordError
from inference_benchmark.records.record import Record
from inference_benchmark.records.results import NO_STUDIES, Studies, cell_result
from inference_benchmark.records.rounds import combined_by_split, copied, rounds_by_path, rounds_text
from inference_benchmark.results import benchmark_reports
from inference_benchmark.results.cell_result import CellResult
from inference_benchmark.results.summary_csv import read_summary, read_table

#: The axes of a grid along which its columns can be compared with each other.
AXES = ("engine", "environment")


@dataclass(frozen=True)
class ResultSet:
    """Cells measured on one machine. facts: what they were measured on and with, with every value that each fact takes.
    notes: remarks at the top of a table, and about files beside it. speed: the median of the machine by its yardstick.
    measured_from: when its first cell was measured, as an ISO date. None where unknown. records: of all rounds of each
    cell, by CellResult.record; empty where there are figures alone."""

    name: str
    cells: Sequence[CellResult]
    facts: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    speed: Speed | None = None
    measured_from: str | None = None
    records: Mapping[str, Record] = field(default_factory=dict)

    def priors(self, figure: Figure) -> list[Prior]:
        """What all cells show about the scatter of each."""
        around = dict(zip(self.records, machine_speed.around([*self.records.values()]), strict=True))
        return statistics.priors_of_processes(
            [cell.samples(figure) for cell in self.cells], [around.get(cell.record, ()) for cell in self.cells]
        )

    def about(self, cells: Iterable[CellResult]) -> Self:
        """With the facts and the speed of these of its cells alone; unchanged where it has no records of them."""
        records = [self.records[cell.record] for cell in cells if cell.record in self.records]
        return replace(self, facts=_facts(records), speed=machine_speed.typical(records)) if records else self


def load(path: Path, name: str | None = None) -> ResultSet:
    """The result set at path: a folder with the records of one machine; a table of figures as CSV, such as summary.csv;
    or Benchmark Reports. Where a table names records that are beside it, they are read instead, because samples say
    more than figures. name: by default the machine's label or the file's name. Raises ProblemsError naming everything
    that cannot be used, and OSError."""
    if path.is_dir() and (paths := records_below(path)):
        studies, notes = _ceilings(path)
        return replace(of_records(_read(paths), name, str(path), studies), notes=notes)
    if benchmark_reports.paths(path):
        reports = benchmark_reports.read(path)
        facts = {"device": reports.devices}
        return ResultSet(name or path.stem, reports.cells, facts, reports.notes, measured_from=reports.measured_from)
    if path.is_dir():
        raise ProblemsError(f"{path}: holds no records (batch-N.json); give a folder below results/, or a CSV file")
    return _of_table(path, name)


def summary_of(path: Path) -> Path:
    """The summary in a folder; the path itself where there is none, as in the folder of an unfinished run."""
    return summary if (summary := path / "summary.csv").exists() else path


def read_cells(path: Path) -> Sequence[CellResult]:
    """The results in a summary or folder, with every figure of its summary; without one those of its records. Raises
    ProblemsError naming everything that cannot be used, and OSError."""
    path = summary_of(path)
    return load(path).cells if path.is_dir() else read_summary(path)


def of_records(
    records: Sequence[Record], name: str | None = None, where: str = "records", studies: Studies = NO_STUDIES
) -> ResultSet:
    """The result set of the records of one machine. Raises ProblemsError where they are of several."""
    machines = sorted({record.cell.machine for record in records})
    if len(machines) > 1:
        raise ProblemsError(f"{where}: holds records of {', '.join(machines)}; give the folder of one of them")
    measured_from = min(record.started_at for record in records)
    rounds = rounds_by_path(records)
    whole = combined_by_split(records, [""] * len(records))
    records = [record for record, *_ in whole]
    # A cell that ended before its parameters were counted has as many as the other cells of its model.
    parameters = {record.cell.model["name"]: n for record in records if (n := record.model.get("parameters"))}
    cells = []
    for each, _, priors in whole:
        cell = cell_result(each, studies=studies, rounds=rounds[each.cell.first_round.path], priors=priors)
        if n := parameters.get(cell.column.model):
            cell = replace(cell, figures={**cell.figures, "parameters": Estimate(n)})
        cells.append(cell)
    speed = machine_speed.typical(records)
    known = {"speed": speed, "measured_from": measured_from, "records": {each.cell.path: each for each in records}}
    return ResultSet(name or machines[0], cells, _facts(records), **known)


def sides(path: Path, axis: str, base: str, new: str) -> tuple[ResultSet, ResultSet]:
    """Two parts of the records of one machine, which differ in an axis of the grid, as result sets: cells are the same
    but for it. axis: one of AXES. base, new: its values. Raises ProblemsError where there are none, and OSError."""
    records = _read(records_below(path) if path.is_dir() else [])
    studies, notes = _ceilings(path)
    by_value: dict[str, list[Record]] = {}
    for each in records:
        by_value.setdefault(getattr(each.cell.column, axis), []).append(each)
    has = ", ".join(by_value) or "no records"
    if absent := [value for value in (base, new) if value not in by_value]:
        raise ProblemsError(*(f"{path}: holds no record with {axis} {value}; it has {has}" for value in absent))
    first, second = (
        replace(results, cells=[replace(cell, column=replace(cell.column, **{axis: ""})) for cell in results.cells])
        for results in (of_records(by_value[value], value, str(path), studies) for value in (base, new))
    )
    return replace(first, notes=notes), second


def _read(paths: Iterable[Path]) -> list[Record]:
    problems, records = [], {}
    for path in paths:
        try:
            records[path] = record_file.load(path)
        except RecordError as error:
            problems.append(f"{path}: {error}")
    if problems := [*problems, *copied(records)]:
        raise ProblemsError(*problems)
    return list(records.values())


def _ceilings(folder: Path) -> tuple[Studies, list[str]]:
    """The ceilings of the machine whose results folder this is, if they can be used; notes say why they cannot."""
    path = folder / "ceilings.json"
    try:
        ceilings = record_file.load_any(path)
    except FileNotFoundError:
        return NO_STUDIES, []
    except RecordError as error:  # such as those of an earlier version of this program
        return NO_STUDIES, [f"{path}: {error}. Its limits are unknown, so no cell is known to be above them."]
    return Studies.of({ceilings.subject.path: ceilings}), []


def _facts(records: Sequence[Record]) -> dict[str, list[Any]]:
    """Everything that could make a difference: where and with what the cells were measured, and how."""
    settings: dict[str, list[Any]] = {}
    rounds = [len(each.runs) for each in records if each.outcome == "ok"]
    in_rounds = {"rounds": rounds_text(min(rounds), max(rounds) > min(rounds))} if rounds else {}
    for each in records:
        cell = each.cell
        measurement = {**vars(cell.measurement), **in_rounds}
        of_cell = _settings(measurement, cell.memory_limit_bytes, [cell.model], {cell.engine: cell.options})
        of_cell["measure version"] = cell.measure_version
        if (workload := cell.workload).prompts:
            of_cell[f"prompts of {workload.name}"] = f"{workload.prompts}, digest {workload.prompts_sha256[:12]}"
        for name, value in of_cell.items():
            if value not in settings.setdefault(name, []):
                settings[name].append(value)
    return comparability.all_facts(records) | settings


def _settings(measurement: Mapping, limit: int | None, models: Iterable[Mapping], variants: Mapping) -> dict[str, Any]:
    return {
        **{f"measurement {name}": value for name, value in measurement.items()},
        "memory limit (bytes)": limit,
        **{f"model {m['name']} {key}": value for m in models for key, value in m.items() if key != "name"},
        **{f"{engine} {option}": value for engine, options in variants.items() for option, value in options.items()},
    }


def _of_table(path: Path, name: str | None) -> ResultSet:
    notes, cells = read_table(path)
    # A row names its record as results/MACHINE/...; it is looked for below the folder of the summary itself. So a copy
    # of a summary is never read as the records that were made later in the place it was copied from.
    folder = path.parent.parent if path.parent.name == "preview" else path.parent
    records = [folder.joinpath(*Path(cell.record).parts[2:]) for cell in cells if cell.record]
    machines = {cell.machine for cell in cells if cell.machine}
    name = name or (machines.pop() if len(machines) == 1 else path.stem)
    existing = sum(file.exists() for file in records)
    if records and existing == len(records):
        rounds = [file for first in records for file in rounds_of(first)]
        studies, about_ceilings = _ceilings(folder)
        return replace(of_records(_read(rounds), name, str(path), studies), notes=[*notes, *about_ceilings])
    if existing:
        missing = f"{len(records) - existing} of its {len(records)} records are not beside it"
        notes.append(f"{path}: {missing}: figures alone are used.")
    provenance = path.with_name("provenance.json")
    known = _from_provenance(provenance) if path.name == "summary.csv" and provenance.exists() else {}
    return ResultSet(name, cells, notes=notes, **known)


def _from_provenance(path: Path) -> dict[str, Any]:
    """The facts in the provenance.json of a run, the speed of its machine and its date, as ResultSet names them."""
    try:
        provenance = files.read_json(path)
        known = (provenance[name] for name in ("measurement", "memory_limit_bytes", "models"))
        settings = _settings(*known, provenance.get("variants", {}))
        facts = provenance["facts"] | {fact: [value] for fact, value in settings.items()}
        speed = Speed.of_facts(provenance["machine_speed"]) if provenance.get("machine_speed") else None
        return {"facts": facts, "speed": speed, "measured_from": provenance.get("measured_from")}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProblemsError(f"{path}: cannot be used ({error!r}); copy it again, or remove it") from None
