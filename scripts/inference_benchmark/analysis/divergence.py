"""How far one set of answers is from another: tokens, logits, probabilities. Pure functions of arrays."""

from __future__ import annotations

from typing import Any

import numpy

#: The reference that all answers are compared with: (engine, precision).
REFERENCE = ("hf", "fp32")
#: Prompts, and the most tokens per answer: the logits of every step are held on the host.
ROWS, STEPS = 8, 32


def divergence(
    expected: numpy.ndarray, tokens: numpy.ndarray, expected_logits: numpy.ndarray, logits: numpy.ndarray
) -> dict[str, Any]:
    """The figures of a divergence study. expected: of the reference.

    expected, tokens: int64 (rows, steps), greedy, each following its own tokens. expected_logits, logits: float32
    (rows, steps, vocabulary), both following the expected tokens.

    token_agreement: part of the tokens that are equal. first_difference: per row the first step, from 0, whose token
    differs, or None. next_token_agreement: part of the steps that choose the expected token, given the expected tokens
    before it.
    logits_error: norm of the logits' difference over the norm of the expected logits, both less their mean, which
    changes no probability. kl_nats: Kullback-Leibler divergence of the next token's distribution from the expected.
    """
    errors, divergences = [], []
    for row, expected_row in zip(logits, expected_logits, strict=True):  # a row at a time: float64 of all is large
        actual, reference = (_centred(part) for part in (row, expected_row))
        errors.append(numpy.linalg.norm(actual - reference, axis=-1) / numpy.linalg.norm(reference, axis=-1))
        divergences.append(kl_nats(log_probabilities(reference), log_probabilities(actual)))
    return {
        "rows": int(expected.shape[0]),
        "steps": int(expected.shape[1]),
        **agreement(expected, tokens),
        "next_token_agreement": float((logits.argmax(axis=-1) == expected).mean()),
        "logits_error": _mean_and_max(errors),
        "kl_nats": _mean_and_max(divergences),
    }


def agreement(expected: numpy.ndarray, tokens: numpy.ndarray) -> dict[str, Any]:
    """token_agreement and first_difference, as divergence has them; both arrays int64 (rows, steps)."""
    unequal = tokens != expected
    return {
        "token_agreement": float(1 - unequal.mean()),
        "first_difference": [int(row.argmax()) if row.any() else None for row in unequal],
    }


def gap(logits: numpy.ndarray, one: int, other: int) -> float:
    """How far apart the logits of two tokens are, in standard deviations of all logits (vocabulary,), the unit of
    logits_error."""
    logits = logits.astype(numpy.float64)
    return float(abs(logits[one] - logits[other]) / logits.std())


def _centred(logits: numpy.ndarray) -> numpy.ndarray:
    logits = logits.astype(numpy.float64)
    return logits - logits.mean(axis=-1, keepdims=True)


def log_probabilities(logits: numpy.ndarray) -> numpy.ndarray:
    """Natural logarithms of what the softmax of logits (..., vocabulary) gives; as exact as their dtype."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - numpy.log(numpy.exp(shifted).sum(axis=-1, keepdims=True))


def kl_nats(log_p: numpy.ndarray, log_q: numpy.ndarray) -> numpy.ndarray:
    """Kullback-Leibler divergence of q from p, both as logarithms (..., vocabulary)."""
    return (numpy.exp(log_p) * (log_p - log_q)).sum(axis=-1)


def _mean_and_max(values: list[numpy.ndarray]) -> dict[str, float | None]:
    """Both None if a logit was NaN or infinite."""
    every = numpy.stack(values)
    if not numpy.isfinite(every).all():
        return {"mean": None, "max": None}
    return {"mean": float(every.mean()), "max": float(every.max())}
