"""How well one engine and precision predicts a text, and how far that is from hf in fp32 (analysis/quality.py)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy

from inference_benchmark.analysis.divergence import REFERENCE
from inference_benchmark.analysis.quality import PROMPT_TOKENS, scores
from inference_benchmark.engines.options import placed
from inference_benchmark.experiment.studies import QualityStudy, study_from_json
from inference_benchmark.models import texts
from inference_benchmark.worker.engine_session import EngineSession

#: Windows per call, for an engine that goes through them step by step.
ROWS = 4


def run(session: EngineSession, subject: str, checkpoint: str, text: str, scratch: str) -> None:
    """subject: the study as JSON text. text: the file that holds it. scratch: a folder with space for the logits of the
    reference, which wait there, so that neither they nor both models are in memory. Sends a result for each window."""
    study = study_from_json(subject)
    windows = texts.windows(Path(text), Path(checkpoint), study.tokens)
    engine, precision = REFERENCE
    reference = replace(study, engine=engine, options=placed(study.options), precision=precision)
    with tempfile.TemporaryFile(dir=scratch) as stored:
        for logits in _logits(session, reference, checkpoint, windows):
            logits.tofile(stored)
            shape = logits.shape
        stored.seek(0)
        for tokens, logits in zip(windows, _logits(session, study, checkpoint, windows), strict=True):
            expected = numpy.fromfile(stored, numpy.float32, numpy.prod(shape)).reshape(shape)
            session.emit(results=[scores(tokens[PROMPT_TOKENS:], expected, logits)])


def _logits(
    session: EngineSession, study: QualityStudy, checkpoint: str, windows: numpy.ndarray
) -> Iterator[numpy.ndarray]:
    """float32 (scored tokens, vocabulary) for each window. Raises CheckpointError if the tokenizer has more tokens than
    the model."""
    engine = session.load(study, checkpoint, min(ROWS, len(windows)))
    session.enter("answer")
    texts.check_known(windows, engine.vocab_size)
    for n in range(0, len(windows), ROWS):
        prompts, continuation = numpy.split(windows[n : n + ROWS], [PROMPT_TOKENS], axis=1)
        yield from engine.text_logits(prompts, continuation)
    engine.unload()
