"""Whether the answers of one engine and precision to the same prompts depend on the batch size."""

from __future__ import annotations

import math
from contextlib import suppress
from itertools import chain

import numpy

from inference_benchmark.analysis.batch_invariance import STEPS, compared_rows
from inference_benchmark.analysis.divergence import agreement, gap
from inference_benchmark.engines.refusal import UnsupportedError
from inference_benchmark.experiment.studies import study_from_json
from inference_benchmark.worker.engine_session import EngineSession, timed_call


def run(session: EngineSession, subject: str, checkpoint: str | None) -> None:
    """subject: the study as JSON text. Sends a result for each batch size, up to the first that does not fit."""
    study = study_from_json(subject)
    workload, steps = study.workload, min(study.workload.new_tokens, STEPS)
    rows_of = {size: compared_rows(size) for size in study.batch_sizes}
    engine = session.load(study, checkpoint, 1)
    session.enter("answer")
    prompts = session.draw_prompts(max(rows_of))

    def answers(rows: slice) -> numpy.ndarray:
        return timed_call(engine, engine.generate, prompts[rows], steps)[1]

    def prepare(batch_size: int) -> None:
        engine.release()
        engine.expect(batch_size, workload.prompt_tokens, workload.new_tokens)

    alone = {row: answers(slice(row, row + 1))[0] for row in sorted({*chain(*rows_of.values())})}
    in_batch = {}
    for size, rows in rows_of.items():
        with suppress(UnsupportedError), session.if_memory_suffices():  # too many rows for the library, or the memory
            prepare(size)
            in_batch[size] = answers(slice(size))[rows]
        if size not in in_batch:
            break
    prepare(1)
    engine.lift_limit()  # logits need memory beyond it

    def gap_at(row: int, step: int, other: int) -> float | None:
        logits = engine.next_token_logits(prompts[row : row + 1], alone[row][None, : step + 1])[0, -1]
        found = gap(logits, alone[row][step], other)
        return found if math.isfinite(found) else None

    for size, tokens in in_batch.items():
        rows, expected = rows_of[size], numpy.stack([alone[row] for row in rows_of[size]])
        found = agreement(expected, tokens)
        firsts = zip(rows, found["first_difference"], tokens, strict=True)
        gaps = [None if step is None else gap_at(row, step, of_row[step]) for row, step, of_row in firsts]
        session.emit(results=[{"batch_size": size, "rows": rows, "steps": steps, **found, "gaps": gaps}])
