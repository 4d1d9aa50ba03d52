"""Made-up cells, runs, records and grids: shaped like real ones, and no measurement."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from inference_benchmark import files
from inference_benchmark.analysis.roofline import Matrix, Shapes
from inference_benchmark.analysis.statistics import Estimate
from inference_benchmark.compare import result_set
from inference_benchmark.experiment.cells import Cell, Measurement, Workload
from inference_benchmark.experiment.experiment import Experiment
from inference_benchmark.experiment.studies import CeilingsStudy
from inference_benchmark.records import collect, comparability
from inference_benchmark.records.parts import Note, Reason, Run, Stability
from inference_benchmark.records.record import Record, StudyRecord
from inference_benchmark.records.results import cell_results
from inference_benchmark.render import report
from inference_benchmark.results.cell_result import CellResult

TEMPLATE = Path(__file__).resolve().parents[1] / "report/report.html.j2"

TINY_BLOOM = {"model_type": "bloom", "hidden_size": 64, "n_head": 2, "n_layer": 2, "vocab_size": 300}
#: Three families, small enough for a test and large enough to answer like a model.
MODELS = {
    "bloom": {"model_type": "bloom", "hidden_size": 128, "n_head": 4, "n_layer": 4, "vocab_size": 1000},
    "gpt2": {"model_type": "gpt2", "n_embd": 128, "n_head": 4, "n_layer": 4, "vocab_size": 1000, "n_positions": 128},
    "llama": {
        "model_type": "llama", "hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_hidden_layers": 4, "intermediate_size": 256, "vocab_size": 1000,
    },
}  # fmt: skip
#: An environment of other software, as a cell has it.
OLD = {"name": "old", "lock": "0123456789abcdef"}
#: As few calls as there can be.
MEASUREMENT = Measurement(
    warmup_tolerance_percent=5,
    max_warmup_calls=5,
    min_cycles=3,
    min_seconds=0,
    target_half_width_percent=1,
    max_seconds=0,
    seed=0,
    threads=None,
)


# -- one cell ----------------------------------------------------------------------------------------


def make_cell(**changes: Any) -> Cell:
    """A cell of the fake engine, quick to measure. changes replace fields."""
    cell = Cell(
        machine="box",
        device="cpu",
        model={"name": "tiny", "architecture": TINY_BLOOM, "seed": 0},
        workload=Workload(prompt_tokens=4, new_tokens=8),
        engine="fake",
        precision="fp32",
        batch_size=2,
        memory_limit_bytes=None,
        measurement=MEASUREMENT,
    )
    return replace(cell, **changes)


def measurement(**changes: Any) -> Measurement:
    return replace(MEASUREMENT, **changes)


def make_experiment(*batch_sizes: int, **changes: Any) -> Experiment:
    """Cells as make_cell makes them."""
    cell = make_cell()
    experiment = Experiment(
        machine=cell.machine,
        device=cell.device,
        models=(cell.model,),
        workloads=(cell.workload,),
        engines=("fake",),
        precisions=("fp32",),
        batch_sizes=batch_sizes or (1, 2),
        memory_limit_bytes=None,
        measurement=cell.measurement,
    )
    return replace(experiment, **changes)


def make_run(**changes: Any) -> Run:
    run = Run(
        load_s=1.0,
        warmup_s=(0.5, 0.5),
        samples_s=(0.4, 0.5, 0.6),
        first_token_s=(0.1, 0.1, 0.1),
        tokens_sha256=("a" * 64,),
        memory={"peak_rss_bytes": 10**9},
        energy=None,
        conditions={},
    )
    return replace(run, **{name: tuple(v) if isinstance(v, list) else v for name, v in changes.items()})


def make_yardstick(memory_s: float, arithmetic_s: float) -> dict[str, Any]:
    """Times of two passes of each kernel, of 10 GB and 100 Gflop."""
    return {"memory_s": [memory_s] * 2, "moved_bytes": 10**10, "arithmetic_s": [arithmetic_s] * 2, "flop": 10**11}


STABLE = Stability(stable=True, reasons=(), outliers=None, drift=None)
DRIFTS = Stability(stable=False, reasons=(Note("drift", "slower"),), outliers=1, drift=0.1)
SHARED = (Note("gpu-shared", "2 others"),)
OOM = Reason(phase="load", exception_type="X", message="m", limit=None, evidence={})


def make_record(of: Cell | None = None, **changes: Any) -> Record:
    """A record; a change named as a part of a run goes to its run."""
    cell = of or make_cell()
    run_parts = vars(make_run()).keys() & changes.keys()
    run = make_run(**{name: changes.pop(name) for name in run_parts})
    fields: dict[str, Any] = {
        "cell": cell,
        "outcome": "ok",
        "reason": None,
        "runs": (run,),
        "stability": STABLE if changes.get("outcome", "ok") == "ok" else None,
        "flags": (),
        "model": {"parameters": 1, "weights_bytes": 4},
        "software": {"python": "3.11", "torch": "2.13.0"},
        "device": {"kind": "cpu", "name": "Some CPU"},
        "host": {"name": "h", "memory_bytes": 4 * 10**9, "memory_limit": None},
        "variables": {},
        "git": {"commit": "c" * 40, "dirty": False},
        "started_at": f"2026-01-01T00:{cell.round - 1:02}:00.000+00:00",
        "ended_at": f"2026-01-01T00:{cell.round - 1:02}:09.000+00:00",
    }
    return Record(**fields | changes)


def make_oom(of: Cell | None = None, **changes: Any) -> Record:
    """A record of a cell that did not fit."""
    return make_record(of, outcome="oom", samples_s=(), reason=OOM, **changes)


CEILINGS_RESULTS = (
    {"kind": "bandwidth", "kernel": "copy", "working_set_bytes": 10, "moved_bytes": 10, "samples_s": [1.0, 2.0, 9.0]},
    {"kind": "bandwidth", "kernel": "sum", "working_set_bytes": 10, "moved_bytes": 10, "samples_s": [0.5, 4.0, 5.0]},
    {"kind": "bandwidth", "kernel": "sum", "working_set_bytes": 20, "moved_bytes": 20, "samples_s": [2.0, 2.0, 2.0]},
    {"kind": "matmul", "kernel": "torch.mm", "dtype": "float32", "rows": 1, "inputs": 1, "outputs": 1, "flop": 12, "samples_s": [3.0, 4.0, 5.0]},
    {"kind": "matmul", "kernel": "torch.nn.functional.linear", "dtype": "float32", "rows": 2, "inputs": 1, "outputs": 1, "flop": 20, "samples_s": [4.0, 4.0, 4.0]},
    {"kind": "matmul", "kernel": "torch.mm", "dtype": "tf32", "rows": 2, "inputs": 1, "outputs": 1, "flop": 80, "samples_s": [4.0, 4.0, 4.0]},
)  # fmt: skip


def make_ceilings(**changes: Any) -> StudyRecord:
    """The ceilings of the machine that make_record is of."""
    like = make_record()
    where = ("software", "device", "host", "variables", "git", "started_at", "ended_at")
    fields: dict[str, Any] = {
        "study": CeilingsStudy("box", "cpu", None),
        "outcome": "ok",
        "reason": None,
        "results": CEILINGS_RESULTS,
        "limit": None,
        "conditions": {},
        "flags": (),
        "model": {},
        **{name: getattr(like, name) for name in where},
    }
    return StudyRecord(**fields | changes)


#: What the plain kernels of torch reached on two cores of an older AMD EPYC, which has no instructions for 16 bits and
#: none for products of 8 bits.
EPYC_GFLOP_PER_S = {"float32": 67.0, "bfloat16": 11.5, "float16": 14.7, "int8": 3.7}
#: Its memory is made up, and so fast that arithmetic bounds everything.
_FAST_MEMORY = {"kind": "bandwidth", "kernel": "sum", "working_set_bytes": 10, "moved_bytes": 10, "samples_s": [1e-12]}
_INT8 = Shapes((Matrix("m", 10, 1000, 1000, 10**6, "int8"),), 0, 0, 4, 0, "float32", 4)


def epyc_ceilings() -> StudyRecord:
    """The ceilings of that EPYC by one kernel per dtype."""
    return make_ceilings(results=(_FAST_MEMORY, *(matmul(*each) for each in EPYC_GFLOP_PER_S.items())))


def matmul(dtype: str, gflop_per_s: float, kernel: str = "torch.mm") -> dict[str, Any]:
    """A result of the ceilings: a product at this speed."""
    sizes = {"rows": 128, "inputs": 2048, "outputs": 2048, "flop": 2 * 128 * 2048**2}
    seconds = sizes["flop"] / gflop_per_s / 1e9
    return {"kind": "matmul", "kernel": kernel, "dtype": dtype, **sizes, "samples_s": [seconds]}


def epyc_record(prefill: float, decode: float, batch_size: int = 1) -> Record:
    """A cell of ctranslate2 in int8 on that EPYC that computes at these speeds in Gflop/s."""
    cell = make_cell(workload=Workload(64, 5), engine="ctranslate2", precision="int8", batch_size=batch_size)
    flop_per_token = 2 * batch_size * 10 * 1000**2
    first_token_s = 64 * flop_per_token / prefill / 1e9
    latency_s = first_token_s + 4 * flop_per_token / decode / 1e9
    model = {"parameters": 10**7, "tf32": False, "shapes": asdict(_INT8)}
    return make_record(cell, samples_s=[latency_s] * 3, first_token_s=[first_token_s] * 3, model=model)


# -- whole grids ---------------------------------------------------------------------------------------

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, *range(128, 1921, 128))
#: Tokens per second of one row, tokens per second at most, and the largest batch of 109 tokens a row that fits.
SPEEDS = {"fp32": (45, 3500, 900), "bf16": (42, 7800, 1800), "int8": (12, 5200, 1920), "fp16": (44, 7900, 1800)}
BLOOM = {"model_type": "bloom", "hidden_size": 2048, "n_head": 16, "n_layer": 24, "vocab_size": 50258}


def grid(**changes: Any) -> Experiment:
    """The grid of the published table, in two engines."""
    experiment = Experiment(
        machine="made-up-gpu",
        device="cuda",
        models=({"name": "bloom-1b3", "architecture": BLOOM, "seed": 0},),
        workloads=(Workload(prompt_tokens=9, new_tokens=100),),
        engines=("hf", "hf-static"),
        precisions=("fp32", "bf16", "int8"),
        batch_sizes=BATCH_SIZES,
        memory_limit_bytes=None,
        measurement=MEASUREMENT,
    )
    return replace(experiment, **changes)


def records_of(experiment: Experiment, faster: float = 1.0, rounds: int = 1, seed: int = 0) -> list[Record]:
    """A record for each round of each cell; each call is ``faster`` times as fast as it would be."""
    chance = random.Random(seed)
    return [_record_of(cell, faster, chance) for cell in replace(experiment, rounds=rounds).cells()]


def _record_of(cell: Cell, faster: float, chance: random.Random) -> Record:
    one_row, most, largest = SPEEDS[cell.precision]
    faster = faster * (3 if cell.engine == "hf-static" else 1)
    device = {"kind": "cuda", "name": "Made-up GPU", "driver": "1.2", "memory_bytes": 80 * 10**9}
    prompt_tokens, new_tokens, batch = cell.workload.prompt_tokens, cell.workload.new_tokens, cell.batch_size
    rows_of_109 = batch * (prompt_tokens + new_tokens) / 109
    if rows_of_109 > largest:
        return make_oom(cell, device=device)
    seconds = (1 / one_row + batch / most) * new_tokens / faster
    process = chance.gauss(1, 0.004)
    run = make_run(
        samples_s=[seconds * process * chance.gauss(1, 0.003) for _ in range(5)],
        first_token_s=[seconds / new_tokens * (2 + (prompt_tokens - 9) / 100) * process * chance.gauss(1, 0.003) for _ in range(5)],
        memory={
            "loaded_bytes": 3 * 10**9,
            "peak_allocated_bytes": 3 * 10**9 + round(rows_of_109 * 40 * 10**6),
            "peak_reserved_bytes": 4 * 10**9 + round(rows_of_109 * 40 * 10**6),
            "device_total_bytes": 80 * 10**9,
        },
        energy={"source": "nvml", "scope": "GPU board", "joules": 500 * seconds * 5, "resolution_j": 0.02 * 500 * seconds * 5, "seconds": seconds * 5, "update_interval_s": 0.1},
    )  # fmt: skip
    doubtful = {8: {"stability": DRIFTS}, 64: {"flags": SHARED}}.get(batch, {})
    model = {"parameters": 1_311_535_104, "weights_bytes": 5 * 10**9}
    return make_record(cell, device=device, runs=(run,), model=model, **doubtful)


#: A part of the grid in which everything fits.
SMALL = {"batch_sizes": (1, 2, 4, 8, 16, 32, 64), "precisions": ("fp32", "bf16"), "engines": ("hf",)}


def small_set(
    name: str = "box", faster: float = 1.0, rounds: int = 8, seed: int = 0, **changes: Any
) -> result_set.ResultSet:
    """The result set of the small grid."""
    return result_set.of_records(records_of(grid(**SMALL | changes), faster, rounds, seed), name)


def write_records(folder: Path, records: Sequence[Record]) -> Path:
    """Write records where they belong below a folder; the folder of their machine."""
    for record in records:
        files.write_json(record.to_document(), folder / record.cell.path)
    return folder / "results" / records[0].cell.machine


def with_figures(result: CellResult, **figures: float | Sequence[float] | None) -> CellResult:
    """A result with other figures, by name: a value, a value with the ends of its interval, or None for none."""
    changed = {name: Estimate(*value) if isinstance(value, Sequence) else value for name, value in figures.items()}
    changed = {name: Estimate(value) if isinstance(value, (int, float)) else value for name, value in changed.items()}
    found = {**result.figures, **changed}
    return replace(result, figures={name: value for name, value in found.items() if value is not None})


def results_of(records: Sequence[Record], faster: float = 1.0) -> list[CellResult]:
    """The results of records, with shares of a limit that nobody measured; those of the whole call ``faster`` times."""
    shares = {"prefill_limit_share": 0.3, "decode_limit_share": 0.5, "whole_limit_share": 0.45 * faster}
    bound_by = dict.fromkeys(("prefill", "decode", "whole"), "memory")
    return [
        replace(with_figures(each, **shares), bound_by=bound_by) if each.is_measured else each
        for each in cell_results(records)
    ]


def report_page(experiments: Sequence[Experiment], template, comparisons=(), notes=()) -> str:
    """The report of made-up records of one or more machines."""
    of = [(each, records_of(each, seed=n)) for n, each in enumerate(experiments)]
    results = [each for _, records in of for each in results_of(records)]
    provenances = [collect.provenance_of(experiment, records) for experiment, records in of]
    return report.render(results, provenances, template, comparisons, notes)


def as_config(measurement: Measurement = MEASUREMENT) -> dict[str, Any]:
    """Measurement settings as config.yaml has them."""
    return {**asdict(measurement), "rounds": 1}


def sample_records(**model: Any) -> list[Record]:
    """Two cells each of two engines: measured and oom, measured and unsupported."""
    of = {"model": {"name": "m", "architecture": {}, "seed": 0, **model}}
    return [
        make_record(make_cell(batch_size=1, engine="hf", **of)),
        make_oom(make_cell(batch_size=2, engine="hf", **of)),
        make_record(make_cell(batch_size=1, engine="fake", precision="int8", **of)),
        make_record(
            make_cell(batch_size=2, engine="fake", precision="int8", **of),
            outcome="unsupported",
            samples_s=(),
            reason=OOM,
        ),
    ]


def sample_page(records: Sequence[Record], studies: Mapping[str, StudyRecord] | None = None, **provenance: Any) -> str:
    """The report of a few records of one machine. studies: by path."""
    facts = {
        "machine": "box",
        "device": "cpu",
        "measured_from": "2026-01-01T00:00:00",
        "measured_to": "2026-01-02T00:00:00",
        "measurement": as_config(),
        "memory_limit_bytes": 420_000_000,
        "models": [records[0].cell.model],
        "facts": comparability.all_facts(records),
    }
    return report.render(cell_results(records, studies), [facts | provenance], TEMPLATE)
