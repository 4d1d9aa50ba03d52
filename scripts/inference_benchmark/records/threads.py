"""What a cell did with each number of CPU threads (scripts/threads.py): raw records in one file."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inference_benchmark import files
from inference_benchmark.analysis import metrics
from inference_benchmark.analysis.statistics import Estimate
from inference_benchmark.experiment.outputs import thread_trial
from inference_benchmark.records.record import Record
from inference_benchmark.records.rounds import combined


def to_document(records: Sequence[Record]) -> dict[str, Any]:
    return {"records": [record.to_document() for record in records]}


def load(path: Path) -> list[Record]:
    """Raises RecordError, OSError, and ValueError where it is no JSON of such a document."""
    return [Record.from_document(document) for document in files.read_json(path)["records"]]


def tried_on(machine: str) -> list[Record]:
    """What was tried there; [] if nothing was. Raises as load."""
    path = Path(thread_trial(machine))
    return load(path) if path.exists() else []


def throughputs(records: Sequence[Record]) -> Mapping[int, Estimate]:
    """Tokens per second by the number of threads, of all rounds; only of cells that were measured."""
    by_threads: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        if record.outcome == "ok":
            by_threads[record.cell.threads].append(record)
    return {n: metrics.throughput_tok_per_s(combined(of)[0].measured()) for n, of in sorted(by_threads.items())}
