"""What the checks use on a device, and the records and engines that they look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import filelock

from gpu_checks.runner import NothingToCheckError, Verdict, ok_if, skipped
from inference_benchmark import engines
from inference_benchmark.analysis.divergence import REFERENCE
from inference_benchmark.engines import ENGINES
from inference_benchmark.engines.engine import Engine
from inference_benchmark.experiment.cells import Cell, Measurement, Workload
from inference_benchmark.experiment.studies import Study, Subject
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.machine import hardware
from inference_benchmark.measure.held_device import hold_device
from inference_benchmark.measure.run import measure_cell, run_study
from inference_benchmark.models import checkpoint
from inference_benchmark.records import record_file
from inference_benchmark.records.record import AnyRecord, Record, StudyRecord

BLOOM_1B3 = {"model_type": "bloom", "hidden_size": 2048, "n_head": 16, "n_layer": 24, "vocab_size": 50258}
TINY_BLOOM = {"model_type": "bloom", "hidden_size": 64, "n_head": 16, "n_layer": 1, "vocab_size": 1000}
#: As wide as these, for what transformers does not do with bloom.
LLAMA = {
    "model_type": "llama", "hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 16,
    "num_hidden_layers": 4, "intermediate_size": 8192, "vocab_size": 50258,
}  # fmt: skip
HF, STATIC = REFERENCE[0], "hf-static"
#: The engines that run on a GPU, in this environment, and have bloom.
CHECKED = {
    name: entry
    for name, entry in ENGINES.items()
    if entry.needs_weights and "cuda" in entry.devices and not entry.locks and entry.has_family("bloom")
}


@dataclass(frozen=True)
class Setup:
    """What the checks use on a device.

    model, probe, llama: sizes. precision: of the checks of a single one. steady: prompt tokens, batch size and seconds
    of the calls whose power is measured. crowded: prompt tokens, batch size and memory limit of a cell that does not
    fit. searched: prompt tokens and memory limit of searches; with long prompts few rows fit, and few tries find out.
    cached: batch size and prompt tokens of calls with a static cache. tight_bytes: a memory limit that the probe does
    not fit into. pair: two GPUs as CUDA_VISIBLE_DEVICES names them; "" where there is one. threads: of each worker.
    folder: for all records.
    """

    device: str
    model: Mapping[str, Any]
    probe: Mapping[str, Any]
    llama: Mapping[str, Any]
    precisions: tuple[str, ...]
    precision: str
    batch_sizes: tuple[int, ...]
    new_tokens: int
    steady: tuple[int, int, float]
    crowded: tuple[int, int, int]
    searched: tuple[int, int]
    cached: tuple[int, int]
    tight_bytes: int
    pair: str = ""
    threads: int | None = None
    folder: str = ""

    def cell(self, engine: str, precision: str, batch_size: int) -> Cell:
        """A cell of the model with as few calls as there can be: two warm-up calls that compile nothing, two timed."""
        return Cell(
            machine="gpu-check",
            device=self.device,
            model={"name": "model", "architecture": self.model, "seed": 0},
            workload=Workload(9, self.new_tokens),
            engine=engine,
            precision=precision,
            batch_size=batch_size,
            memory_limit_bytes=None,
            measurement=Measurement(
                warmup_tolerance_percent=100,
                max_warmup_calls=5,
                min_cycles=2,
                min_seconds=0,
                target_half_width_percent=1,
                max_seconds=0,
                seed=0,
                threads=self.threads,
            ),
        )

    def probe_cell(self, engine: str, precision: str, batch_size: int = 1, **changes: Any) -> Cell:
        """A cell of the probe. changes replace fields."""
        model = {"name": "probe", "architecture": self.probe, "seed": 0}
        return replace(self.cell(engine, precision, batch_size), model=model, **changes)


SETUPS = {
    "cuda": Setup(
        device="cuda",
        model=BLOOM_1B3,
        probe={**BLOOM_1B3, "n_layer": 4},
        llama=LLAMA,
        precisions=(
            *("fp32", "bf16", "int8"),  # of the default grid
            *("fp16", "int8-threshold-0", "nf4", "int8-weight-only", "int4-weight-only"),
        ),
        precision="bf16",
        batch_sizes=(1, 128),
        new_tokens=16,
        steady=(128, 128, 6),
        crowded=(512, 512, 3 * 10**9),
        searched=(2048, 3 * 10**9),
        cached=(128, 256),
        tight_bytes=10**9,
    ),
    "cpu": Setup(
        device="cpu",
        model=TINY_BLOOM,
        probe=TINY_BLOOM,
        llama={**LLAMA, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 256, "vocab_size": 1000},
        precisions=("fp32", "int8"),
        precision="fp32",
        batch_sizes=(4,),
        new_tokens=8,
        steady=(9, 4, 1),
        crowded=(256, 64, 200 * 10**6),
        searched=(512, 150 * 10**6),
        cached=(4, 9),  # as in the cells: compiled once for all
        tight_bytes=0,  # not used
    ),
}


def measured(setup: Setup, cell: Cell, watch: Supervision | None = None) -> Record:
    """The record of a cell, measured once for all checks. watch: None is the default."""
    return _made_once(setup, cell, lambda path: measure_cell(cell, watch or Supervision()))


def figures(setup: Setup, cell: Cell, watch: Supervision | None = None) -> Record:
    """The same of a cell with the outcome ok. Raises NothingToCheckError."""
    return with_outcome_ok(measured(setup, cell, watch))


def studied(setup: Setup, study: Study) -> StudyRecord:
    """The record of a study with the outcome ok. Raises NothingToCheckError."""
    return with_outcome_ok(_made_once(setup, study, lambda path: run_study(study, Supervision(), path)))


def _made_once(setup: Setup, subject: Subject, make: Callable[[Path], AnyRecord]) -> AnyRecord:
    path = Path(setup.folder, subject.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_suffix(".lock")):  # of two checks at a time the second waits for the record
        if not path.exists():
            record_file.write(make(path), path)
    return record_file.load_for(subject, path)


def with_outcome_ok(made: AnyRecord) -> AnyRecord:
    if made.outcome == "ok":
        return made
    text = f"{made.subject.label}: {made.outcome} during {made.reason.phase}: {made.reason.message}"
    raise NothingToCheckError(skipped(f"n/a: {text}") if made.outcome == "unsupported" else ok_if(False, text))


@contextmanager
def loaded(setup: Setup, engine_name: str, precision: str) -> Iterator[Engine]:
    """An engine with the probe loaded, in this process. Raises NothingToCheckError where it lacks the precision."""
    cell = setup.probe_cell(engine_name, precision)
    folder = checkpoint.ensure(cell.model)
    with hold_device(cell, Supervision()):
        engine = engines.create(engine_name)
        engine.start(setup.device, setup.threads or hardware.default_threads(), folder)
        if reason := engine.unsupported(precision):
            raise NothingToCheckError(skipped(f"n/a: {reason}"))
        engine.load(folder, precision)
        yield engine


def all_of(verdicts: Mapping[str, Verdict]) -> Verdict:
    """One verdict from several: the first that is not ok."""
    words = [each.verdict for each in verdicts.values()]
    return Verdict(
        next((word for word in words if word != "ok"), "ok"),
        "; ".join(f"{name}: {each.evidence}" for name, each in verdicts.items()),
        {name: each.facts for name, each in verdicts.items()},
    )
