"""What charts show: the figures of one model and workload as points of named series. Drawn by drawing.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas

from inference_benchmark.analysis.metrics import interval_columns
from inference_benchmark.compare.comparison import Comparison
from inference_benchmark.experiment.outputs import FILE_CHARTS
from inference_benchmark.render.baseline_columns import baseline_name, cells_of
from inference_benchmark.render.columns import ENDINGS, column_names, column_of
from inference_benchmark.render.tooltips import baseline_tip, peak_bytes, tip

#: Lines of different engines; those of baselines.
DASHES = ((1, 0), (6, 3), (2, 2), (8, 2, 2, 2))
BASELINE_DASH = (1, 3)


class Chart(NamedTuple):
    """name: in the names of files. heading: above it. figure: the column shown over the batch size; axis: its title."""

    name: str
    heading: str
    figure: str
    axis: str


THROUGHPUT = Chart("throughput", "Throughput", "throughput_tok_per_s", "tokens/sec")
LATENCY = Chart("latency", "Latency", "latency_s", "seconds per call")
FRONTIER = Chart("frontier", "Throughput against time per token", "time_per_output_token_s", "sec per output token")
MEMORY = Chart("memory", "Memory", "peak_gb", "peak memory (GB)")
LIMIT = Chart("limit", "Part of the limit reached", "whole_limit_share", "% of limit")
ENERGY = Chart("energy", "Energy", "energy_per_token_j", "joules per token")
FIRST_TOKEN = Chart("first-token", "Prefill: time to first token", "first_token_s", "seconds")
DECODE = Chart("decode", "Decode", "decode_tok_per_s", "tokens/sec")
CHARTS = (THROUGHPUT, LATENCY, FRONTIER, MEMORY, LIMIT, ENERGY, FIRST_TOKEN, DECODE)
#: Those that have a place in a README; they can be drawn whatever was found.
FILES = tuple(chart for chart in CHARTS if chart.name in FILE_CHARTS)

#: Outcomes that have a place in a chart.
_SHOWN = {"ok", *ENDINGS}
_WITH_INTERVAL = ("throughput_tok_per_s", "latency_s", "first_token_s", "decode_tok_per_s", "time_per_output_token_s")


@dataclass(frozen=True)
class Series:
    """A line of every chart of one model and workload, and its entry in a legend."""

    name: str
    colour: int
    dash: tuple[int, ...]
    baseline: bool = False


@dataclass(frozen=True)
class Picture:
    """What the charts of one model and workload show.

    where: the model, workload and machine, for a person. points: a row per cell and series: series, batch_size,
    outcome, every figure there is, and tip, what it says when it is pointed at. capacity_gb: of the memory that cells
    are measured in, None if not known.
    """

    where: str
    series: Sequence[Series]
    points: Sequence[Mapping[str, Any]]
    capacity_gb: float | None

    def shows(self, chart: Chart) -> bool:
        """Whether there is anything to draw."""
        return any(chart.figure in point for point in self.points)


def picture(rows: pandas.DataFrame, beside: Sequence[Comparison] = ()) -> Picture:
    """The rows of one model and workload with the baselines beside them."""
    names = column_names(rows)
    engines = list(dict.fromkeys(engine for engine, _, _ in names))
    kinds = list(dict.fromkeys((precision, variant) for _, precision, variant in names))
    series = {
        name: Series(name, kinds.index((precision, variant)), DASHES[engines.index(engine) % len(DASHES)])
        for (engine, precision, variant), name in names.items()
    }
    points = [_point(row, names[column_of(row)]) for row in rows.to_dict("records") if row["outcome"] in _SHOWN]
    for comparison in beside:
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for (_, precision, size), cell in cells_of(rows, comparison).items():
            name = baseline_name(comparison, cell)
            colour = next(kinds.index(kind) for kind in kinds if kind[0] == precision)
            series.setdefault(name, Series(name, colour, BASELINE_DASH, baseline=True))
            outcome = ENDINGS.get(cell.base_outcome, cell.base_outcome)
            point = {"series": name, "batch_size": size, "outcome": outcome, "tip": baseline_tip(cell)}
            found[name, size] = point | _rounded(cell.base)
        points += found.values()
    first = rows.iloc[0]
    capacities = [_capacity_bytes(row) for row in rows.to_dict("records") if not pandas.isna(row["memory_share"])]
    return Picture(
        where=f"{first['model']}, {first['workload']}, on {first['machine']}",
        series=list(series.values()),
        points=points,
        capacity_gb=max(capacities) / 1e9 if capacities else None,
    )


def _point(row: Mapping[str, Any], series: str) -> dict[str, Any]:
    outcome = ENDINGS.get(row["outcome"], row["outcome"])
    point = {"series": series, "batch_size": row["batch_size"], "outcome": outcome, "tip": tip(row)}
    if row["outcome"] != "ok":
        return point
    values = {name: row[name] for name in ("whole_limit_share", "energy_per_token_j")}
    for name in _WITH_INTERVAL:
        values |= {column: row[column] for column in (name, *interval_columns(name))}
    if not (pandas.isna(row["whole_limit_share"]) or pandas.isna(row["latency_low_s"])):
        # A part of the limit is as sure as the time that it was taken of.
        floor_s = row["whole_limit_share"] * row["latency_s"]
        values |= {"limit_low": floor_s / row["latency_high_s"], "limit_high": floor_s / row["latency_low_s"]}
    if not pandas.isna(row["energy_per_token_j"]):
        joules, resolution = row["energy_per_token_j"], row["energy_per_token_resolution_j"]
        values |= {"energy_low_j": joules - resolution, "energy_high_j": joules + resolution}
    if not pandas.isna(row["memory_share"]):
        values["peak_gb"] = peak_bytes(row) / 1e9
    return point | _rounded({name: value for name, value in values.items() if not pandas.isna(value)})


def _capacity_bytes(row: Mapping[str, Any]) -> float:
    capacity = peak_bytes(row) / row["memory_share"]
    on_device = not pandas.isna(row["peak_reserved_bytes"]) and not pandas.isna(row["memory_limit_bytes"])
    return min(capacity, row["memory_limit_bytes"]) if on_device else capacity


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    """To the digits that can be seen: a page of thousands of cells carries them all."""
    return {name: float(f"{value:.6g}") for name, value in values.items()}
