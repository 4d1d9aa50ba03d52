"""What is known of one cell: the one type of tables, charts, comparisons and choices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from inference_benchmark.analysis.figures import Figure
from inference_benchmark.analysis.stability import FIRST_TOKEN
from inference_benchmark.analysis.statistics import Estimate, Groups
from inference_benchmark.results.column import Column, batch_label

#: The outcomes of a measurement, each with what is shown instead of a figure.
OUTCOMES = {"ok": "", "oom": "oom", "unsupported": "n/a"}
#: The outcomes of a cell without a usable record, in a preview; of these, those that have a reason.
NOT_MEASURED = ("failed", "refused", "missing")
UNFINISHED = frozenset({"failed", "refused"})
#: What tells cells apart. A table of others' figures may lack some of them; its rows then match cells of any value.
KEYS = (
    "model", "parameters", "prompt_tokens", "new_tokens", "prompts", "engine", "environment", "precision", "batch_size",
)  # fmt: skip
#: The flag of a cell that is faster than its machine can be. No best figure and no comparison uses it.
ABOVE_LIMIT = "above-limit"
#: The flag of a cell whose answers differ from those at batch 1 by more than rounding.
BATCH_DIFFERS = "batch-differs"


@dataclass(frozen=True)
class CellResult:
    """One cell, in all rounds that there are of it.

    outcome: in OUTCOMES or NOT_MEASURED. reason: why there is no figure; reason_phase: what the worker was doing then.
    figures: by their names in the catalogue, in the units of their columns. whole_s, first_token_s: seconds of its
    whole calls and of those for one token, by process; rounds: the round of each process; empty where only figures are
    known. bound_by: for each phase of a call what its limit is due to, ``memory``, ``arithmetic`` or ``link``.
    unstable_because, flags, limit_flags, timeline_flags: names of warnings, about the samples, the conditions, the
    ceilings and the timeline; notes: their messages. started_at, ended_at: ISO 8601. record: its path.
    """

    column: Column
    batch_size: int
    outcome: str
    machine: str = ""
    device: str = ""
    reason: str = ""
    reason_phase: str = ""
    figures: Mapping[str, Estimate] = field(default_factory=dict)
    whole_s: Groups = ()
    first_token_s: Groups = ()
    rounds: Sequence[int] = ()
    bound_by: Mapping[str, str] = field(default_factory=dict)
    unstable_because: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    limit_flags: tuple[str, ...] = ()
    timeline_flags: tuple[str, ...] = ()
    notes: str = ""
    memory_limit_bytes: int | None = None
    started_at: str = ""
    ended_at: str = ""
    record: str = ""

    @property
    def is_measured(self) -> bool:
        return self.outcome == "ok"

    @property
    def ending(self) -> str:
        """What is shown instead of a figure: ``oom``, ``n/a``, or nothing."""
        return OUTCOMES.get(self.outcome, "")

    @property
    def warnings(self) -> tuple[str, ...]:
        """The names of all warnings about its samples and conditions."""
        return (*self.unstable_because, *self.flags)

    def is_unstable(self, figure: Figure) -> bool:
        """Whether calls that a figure rests on do not repeat well."""
        calls = {"first_token_s" if name.startswith(FIRST_TOKEN) else "whole_s" for name in self.unstable_because}
        return not calls.isdisjoint(figure.rests_on)

    @property
    def is_above_limit(self) -> bool:
        return ABOVE_LIMIT in self.flags

    @property
    def column_label(self) -> str:
        """``bloom-1b3 prompt9-new100 hf bf16``; of a model without a name its number of parameters."""
        parameters = "" if self.column.model else self.value("parameters")
        return f"{parameters:,} parameters {self.column.label}" if parameters else self.column.label

    @property
    def label(self) -> str:
        """``bloom-1b3 prompt9-new100 hf bf16 batch 8``"""
        return batch_label(self.column_label, self.batch_size)

    @classmethod
    def of_key(cls, key: Mapping[str, Any], outcome: str = "", figures: Mapping[str, float] | None = None) -> Self:
        """The inverse of key, with an outcome, if it is known, and values of figures."""
        texts = {name: key.get(name, "") for name in ("model", "engine", "precision", "environment", "prompts")}
        lengths = {name: key.get(name) for name in ("prompt_tokens", "new_tokens")}
        values = {"parameters": key.get("parameters"), **(figures or {})}
        estimates = {name: Estimate(value) for name, value in values.items() if value is not None}
        return cls(Column(**texts, **lengths), key["batch_size"], outcome, figures=estimates)

    @property
    def key(self) -> dict[str, Any]:
        """What is known of KEYS."""
        known = {**vars(self.column), "parameters": self.value("parameters"), "batch_size": self.batch_size}
        return {name: known[name] for name in KEYS if known[name] not in (None, "")}

    def key_in(self, names: Iterable[str]) -> tuple[Any, ...]:
        known = self.key
        return tuple(known.get(name) for name in names)

    def value(self, name: str) -> float | None:
        """A figure by its name; None where the cell does not have it."""
        return self.figures[name].value if name in self.figures else None

    def samples(self, figure: Figure) -> Groups:
        """The calls that a figure is a mean or rate of, by process."""
        return getattr(self, figure.samples)

    def is_limit_unknown(self, figure: Figure) -> bool:
        """Whether a share of the limit is unknown because the cell is faster than its limit, which is known."""
        return figure.phase in self.bound_by and figure.name not in self.figures


Results = Sequence[CellResult]


def columns_of(results: Iterable[CellResult]) -> list[Column]:
    """Their columns, each once, in the order in which they come first."""
    return list(dict.fromkeys(result.column for result in results))
