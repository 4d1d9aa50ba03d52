"""A column of the tables, and every name of it and its cells: in paths, in one line, in headings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from inference_benchmark.engines import ENGINES

#: The environment that Snakemake runs in. As an axis it also stands for an engine's own environment.
CURRENT = "current"
#: What prompts are windows of, where they are no random token ids.
TEXT = "text"
#: A heading as lines of plain text.
Heading = tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """The cells of one model, workload, engine, environment and precision, which differ in batch size alone.

    Published figures may not say all of it: a text is "", a length None if unknown. engine: as in Cell. base_engine:
    the engine in ENGINES that it is, or is a variant of. options: what a variant chooses, as texts by name.
    environment: as an axis of a grid, so that the one that an engine has of its own is the current one. split: what
    sets apart cells that were measured on or with something else; mostly "". prompts: TEXT, or "" for random token ids.
    """

    model: str
    prompt_tokens: int | None
    new_tokens: int | None
    engine: str
    precision: str
    environment: str = CURRENT
    base_engine: str = ""
    options: tuple[tuple[str, str], ...] = ()
    split: str = ""
    prompts: str = ""

    @property
    def grid(self) -> tuple[str, int | None, int | None, str]:
        """The model and the workload: one set of tables and charts is about them."""
        return self.model, self.prompt_tokens, self.new_tokens, self.prompts

    @property
    def workload(self) -> str:
        return workload_name(self.prompt_tokens, self.new_tokens, self.prompts)

    @property
    def of_text(self) -> str:
        """What is said behind the length of its prompts: `` of a text``, or nothing where they are random token ids."""
        return f" of a {self.prompts}" if self.prompts else ""

    @property
    def path(self) -> str:
        """The folder of all that belongs to it, below that of the machine. The current environment has no folder."""
        return "/".join((*self._other_environment, self.model, self.workload, self.engine, self.precision))

    @property
    def label(self) -> str:
        """``bloom-1b3 prompt9-new100 hf bf16``"""
        return " ".join(filter(None, (self.model, self.workload, self.name)))

    @property
    def name(self) -> str:
        """Within its model and workload: ``hf bf16``; before the engine an environment other than the current one."""
        return " ".join(filter(None, (*self._other_environment, self.engine, self.precision, self.split)))

    @property
    def options_text(self) -> str:
        """``attention sdpa, cache static``; "" for an engine that is no variant."""
        return ", ".join(f"{name} {value}" for name, value in self.options)

    @property
    def meaning(self) -> str:
        """What the precision means in the engine; "" where its name says it all."""
        return ENGINES[self.base_engine].precisions.get(self.precision, "") if self.base_engine in ENGINES else ""

    @property
    def _other_environment(self) -> tuple[str, ...]:
        return (self.environment,) if self.environment not in ("", CURRENT) else ()


def workload_name(prompt_tokens: int | None, new_tokens: int | None, prompts: str) -> str:
    """``prompt9-new100``, or the length that is known; with prompts from text ``prompt9-new100-text``."""
    lengths = {"prompt": prompt_tokens, "new": new_tokens}
    known = [f"{name}{tokens}" for name, tokens in lengths.items() if tokens is not None]
    return "-".join([*known, prompts] if prompts else known)


def batch_label(name: str, batch_size: int) -> str:
    """A cell, by a name of its column: ``hf bf16 batch 8``."""
    return f"{name} batch {batch_size}"


def headings(columns: Iterable[Column]) -> dict[Column, Heading]:
    """The columns of one table, each with its heading; engine and environment are named where there are several."""
    return {
        column: tuple(filter(None, (*which, column.options_text, column.precision, column.meaning, column.split)))
        for column, which in _told_apart(columns).items()
    }


def short_names(columns: Iterable[Column]) -> dict[Column, str]:
    """The same columns, each with a name in one line: ``hf bf16``."""
    return {
        column: " ".join(filter(None, (*which, column.precision, column.split)))
        for column, which in _told_apart(columns).items()
    }


def _told_apart(columns: Iterable[Column]) -> Mapping[Column, tuple[str, str]]:
    """The environment and the engine of each column, "" where all have the same."""
    columns = dict.fromkeys(columns)
    environments, engines = ({getattr(each, name) for each in columns} for name in ("environment", "engine"))
    return {
        each: (each.environment if len(environments) > 1 else "", each.engine if len(engines) > 1 else "")
        for each in columns
    }
