"""Whether the answer to a prompt depends on the batch that it is in. Pure functions.

Kernels for another number of rows add in another order, so that logits are rounded otherwise. That changes a token only
where the two best are a near-tie. A token that changes elsewhere is an error of the batch: rows are mixed up, or masked
or cached wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

#: The most rows of a batch that are compared, and the most tokens of each: each row is also answered alone.
ROWS, STEPS = 8, 128
#: Logits that each have an independent error of 1, alone and in the batch, differ by at most this much more or less, in
#: 99.7 % of all cases: three standard deviations of a sum of four errors.
NEAR_TIE = 6
#: The least logits error that a gap is compared with. hf in fp32 has none against itself; other engines in fp32 stay
#: below this.
LEAST_ERROR = 1e-5


def compared_rows(batch_size: int) -> list[int]:
    """The rows that are compared: the first, and the last, because large batches may fail at their end."""
    return [*range(min(batch_size, ROWS) - 1), batch_size - 1]


class BatchAnswers(NamedTuple):
    """result: of one batch size, as BatchResult in records/study_results.py. logits_error: the mean that a divergence
    study found of the column; None if unknown."""

    result: Mapping[str, Any]
    logits_error: float | None

    @property
    def token_agreement(self) -> float:
        return self.result["token_agreement"]

    @property
    def gap(self) -> float | None:
        """The largest; None if all rows are equal."""
        return max((gap for gap in self.result["gaps"] if gap is not None), default=None)

    @property
    def gap_errors(self) -> float | None:
        """The largest gap as a multiple of the logits error; None if either is unknown."""
        known = self.gap is not None and self.logits_error is not None
        return self.gap / max(self.logits_error, LEAST_ERROR) if known else None

    @property
    def error(self) -> str | None:
        """What is wrong, if that is more than rounding."""
        if self.gap_errors is None or self.gap_errors <= NEAR_TIE:
            return None
        return (
            f"a row of batch {self.result['batch_size']} has another token than at batch 1 where their logits are "
            f"{self.gap:.2g} standard deviations apart, {self.gap_errors:.3g} times the logits error: no near-tie"
        )
