"""Made-up records of whole grids, to look at what becomes of them: shaped like real ones, and no measurement."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import pandas
from test_record import DRIFTS, OOM, SHARED, STABLE, make_record, make_run

from conftest import MEASUREMENT, make_cell
from inference_benchmark.experiment.cells import Experiment
from inference_benchmark.records import collect, summary
from inference_benchmark.render import report

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, *range(128, 1921, 128))
#: Tokens per second of one row, tokens per second at most, and the largest batch that fits.
SPEEDS = {"fp32": (45, 3500, 900), "bf16": (42, 7800, 1800), "int8": (12, 5200, 1920), "fp16": (44, 7900, 1800)}
BLOOM = {"model_type": "bloom", "hidden_size": 2048, "n_head": 16, "n_layer": 24, "vocab_size": 50258}


def experiment(**changes) -> Experiment:
    """The grid of the published table, in two engines."""
    fields = {
        "machine": "made-up-gpu",
        "device": "cuda",
        "models": ({"name": "bloom-1b3", "architecture": BLOOM, "seed": 0},),
        "workloads": ({"prompt_tokens": 9, "new_tokens": 100},),
        "engines": ("hf", "hf-static"),
        "precisions": ("fp32", "bf16", "int8"),
        "batch_sizes": BATCH_SIZES,
        "memory_limit_bytes": None,
        "measurement": dict(MEASUREMENT),
    }
    return Experiment(**fields | changes)


def records(of: Experiment, faster: float = 1.0, processes: int = 1, seed: int = 0) -> list[dict]:
    """A record for each cell; each call is so many times as fast as it would be."""
    chance = random.Random(seed)
    return [_record(cell, faster, processes, chance) for cell in of.cells()]


def _record(cell, faster: float, processes: int, chance: random.Random) -> dict:
    one_row, most, edge = SPEEDS[cell.precision]
    faster = faster * (3 if cell.engine == "hf-static" else 1)
    cell = make_cell(**{**cell.__dict__, "measurement": {**cell.measurement, "processes": processes}})
    known = {"device": {"kind": "cuda", "name": "Made-up GPU", "driver": "1.2", "memory_bytes": 80 * 10**9}}
    if cell.batch_size > edge:
        return make_record(cell, outcome="oom", samples_s=[], first_token_s=[], reason=OOM, **known)
    new_tokens, batch = cell.workload["new_tokens"], cell.batch_size
    seconds = (1 / one_row + batch / most) * new_tokens / faster
    runs = []
    for _ in range(processes):
        process = chance.gauss(1, 0.004)
        runs.append(
            make_run(
                samples_s=[seconds * process * chance.gauss(1, 0.003) for _ in range(5)],
                first_token_s=[seconds / new_tokens * 2 * process * chance.gauss(1, 0.003) for _ in range(5)],
                memory={
                    "loaded_bytes": 3 * 10**9,
                    "peak_allocated_bytes": 3 * 10**9 + batch * 40 * 10**6,
                    "peak_reserved_bytes": 4 * 10**9 + batch * 40 * 10**6,
                    "device_total_bytes": 80 * 10**9,
                },
                energy={"source": "nvml", "scope": "GPU board", "joules": 500 * seconds * 5, "resolution_j": 0.02 * 500 * seconds * 5, "seconds": seconds * 5, "update_interval_s": 0.1},
            )
        )  # fmt: skip
    doubtful = {8: {"stability": DRIFTS}, 64: {"flags": SHARED}}.get(batch, {"stability": STABLE})
    return {
        **make_record(cell, **known, model={"parameters": 1_311_535_104, "weights_bytes": 5 * 10**9}),
        "runs": runs,
        **doubtful,
    }


def frame(of: Sequence[dict]) -> pandas.DataFrame:
    """The summary of records, with parts of a limit that nobody measured."""
    rows = summary.summarise(of)
    measured = rows["outcome"] == "ok"
    for phase, share in (("prefill", 0.3), ("decode", 0.5), ("whole", 0.45)):
        rows[f"{phase}_limit_share"] = measured.map({True: share})
        rows[f"{phase}_bound_by"] = measured.map({True: "memory"})
    return rows


def page(experiments: Sequence[Experiment], template, beside=(), notes=()) -> str:
    """The report of made-up records of one or more machines."""
    known = [(each, records(each, seed=n)) for n, each in enumerate(experiments)]
    rows = pandas.concat([frame(found) for _, found in known], ignore_index=True)
    provenances = [collect.provenance_of(each, json.loads(json.dumps(found))) for each, found in known]
    return report.render(rows, provenances, template, beside, notes)
