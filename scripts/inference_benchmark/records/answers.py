"""Cells in the precision of the reference whose answers differ from those of the reference."""

from collections.abc import Mapping, Sequence
from typing import Any

from inference_benchmark.analysis.divergence import REFERENCE
from inference_benchmark.engines import ENGINES
from inference_benchmark.engines.options import is_exact
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.environments import name_of
from inference_benchmark.experiment.studies import ColumnStudy
from inference_benchmark.records.comparability import disagreeing, facts_that_must_agree
from inference_benchmark.records.record import AnyRecord, Record, StudyRecord
from inference_benchmark.units import format_figure

FLAG = "answers-differ"


def differing(records: Sequence[Record], studies: Mapping[str, StudyRecord]) -> dict[str, str]:
    """{path of a cell: how its answers differ from those of the reference, hf in fp32}.

    A divergence study applies to every cell of its column. The digests of a cell are compared with those of the same
    cell of the reference. A cell with neither gets the verdict on the other cells of its column. The reference has to
    agree with itself, loaded once more. studies: by path.
    """
    of_reference = (record for record in records if (record.cell.engine, record.cell.precision) == REFERENCE)
    references = {_prompts(record.cell): record for record in of_reference}
    columns: dict[str, list[Record]] = {}
    for record in records:
        if record.outcome == "ok" and _has_to_agree(record.cell):
            columns.setdefault(ColumnStudy.of("divergence", record.cell).path, []).append(record)
    messages: dict[str, str] = {}
    for path, column in columns.items():
        verdicts = {
            each.cell.path: _verdict(each, references.get(_prompts(each.cell)), studies.get(path)) for each in column
        }
        if sizes := [str(each.cell.batch_size) for each in column if verdicts[each.cell.path]]:
            shared = f"the answers of batch {', '.join(sizes)} in this column are not those of hf in fp32"
            messages |= {cell: shared if words is None else words for cell, words in verdicts.items() if words != ""}
    return messages


def _verdict(record: Record, reference: Record | None, comparison: StudyRecord | None) -> str | None:
    """How the answers of a cell differ from those of the reference; "" if they do not; None if unknown."""
    is_known = False
    if comparison is not None and comparison.outcome == "ok" and _comparable(record, comparison):
        is_known, result = True, comparison.results[0]
        if result["token_agreement"] < 1:
            error = result["logits_error"]["mean"]
            logits = "" if error is None else f", logits error {error:.2g}"
            return f"{format_figure(result['token_agreement'], '.1%')} of the tokens are those of hf in fp32{logits}"
    if reference is not None and _comparable(record, reference):
        ours, theirs = _digests(record), _digests(reference)
        is_known = is_known or bool(ours and theirs)
        if ours and theirs and not ours & theirs:
            digests = f"digests {min(ours)[:12]} and {min(theirs)[:12]}"
            return f"the answers are not those of hf in fp32 to the same prompts: {digests}"
    return "" if is_known else None


def _has_to_agree(cell: Cell) -> bool:
    """Whether a cell computes the same function as the reference, so that only rounding may differ."""
    has_weights = cell.base_engine in ENGINES and ENGINES[cell.base_engine].needs_weights
    return cell.precision == REFERENCE[1] and has_weights and is_exact(cell.options)


def _prompts(cell: Cell) -> tuple[Any, ...]:
    """What determines the prompts of a cell and the reference's answers to them, in the same environment."""
    environment = name_of(cell.environment)
    return cell.machine, environment, cell.model["name"], cell.workload, cell.batch_size, cell.measurement.seed


def _digests(record: Record) -> set[str]:
    """Digests of all full-length answers; several if they change from call to call."""
    return {digest for run in record.runs for digest in run.tokens_sha256}


def _comparable(record: Record, other: AnyRecord) -> bool:
    """Whether hardware and software of two records agree, as far as both state them."""
    return not disagreeing(facts_that_must_agree(other), facts_that_must_agree(record))
