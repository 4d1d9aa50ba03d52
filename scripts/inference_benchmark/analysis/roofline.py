"""The least time that a cell can take on its machine: the roofline model, step by step.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore architectures", CACM
52(4), 2009. A step takes at least as long as memory needs for the bytes that it reads and writes, and at least as long
as the arithmetic units need for its operations. Weights that are kept elsewhere have to come over a link in each step,
which takes its time too. The floor of a call is the sum over its steps of the largest of these.
docs/limits.md has an example worked by hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Self


@dataclass(frozen=True)
class Matrix:
    """Weights that activations are multiplied by; ``count`` of these sizes in the model.

    weight_bytes: of one, as stored, scales and all. arithmetic: dtype of the product, a key of the ceilings.
    every_position: applied to every token; the output layer is needed for the last one only.
    """

    name: str
    count: int
    inputs: int
    outputs: int
    weight_bytes: int
    arithmetic: str
    every_position: bool = True


@dataclass(frozen=True)
class Shapes:
    """The sizes that determine the work of a decoder-only transformer.

    vector_bytes: all norms and biases. lookup_bytes: read from embedding tables per token. kv_bytes: keys and values of
    one token in one row, all layers. attention_width: sum over layers of heads x head size. attention_arithmetic: dtype
    of attention's products. logit_bytes: of one row's logits.

    A quantised cache stores the prompt with quantised_kv_bytes per token, scales included. New tokens are quantised as
    soon as there are residual_tokens of them. Both are None for other caches.

    link_bytes: of the weights that are kept elsewhere, by the link that they come over in each step: ``disk`` (to host)
    and ``host`` (to device). None where all are on the device.

    devices: over which each matrix is split, so that each has a part of the work of a step; None is 1.
    """

    matrices: tuple[Matrix, ...]
    vector_bytes: int
    lookup_bytes: int
    kv_bytes: int
    attention_width: int
    attention_arithmetic: str
    logit_bytes: int
    quantised_kv_bytes: int | None = None
    residual_tokens: int | None = None
    link_bytes: Mapping[str, int] | None = None
    devices: int | None = None

    @classmethod
    def from_record(cls, values: Mapping[str, Any]) -> Self:
        return cls(**{**values, "matrices": tuple(Matrix(**matrix) for matrix in values["matrices"])})

    @property
    def weight_bytes(self) -> int:
        """Read once in every step: all but the embedding tables, of which a step reads single rows."""
        return sum(m.count * m.weight_bytes for m in self.matrices) + self.vector_bytes

    @property
    def prompt_kv_bytes(self) -> int:
        """Keys and values of one token of a prompt in one row, as they are stored."""
        return self.kv_bytes if self.quantised_kv_bytes is None else self.quantised_kv_bytes


class Steps(NamedTuple):
    """Steps of a call; each quantity is (first, growth): that of the first step, and how much each later one adds.

    moved_bytes: read from memory and written to it. flop: operations per dtype of arithmetic, a multiplication and an
    addition being two. shrinks: (every, bytes): after every so many steps, moved_bytes is less by these bytes.
    link_bytes: that each step gets over each link.
    """

    count: int
    moved_bytes: tuple[int, int]
    flop: Mapping[str, tuple[int, int]]
    shrinks: tuple[int, int] = (1, 0)
    link_bytes: Mapping[str, int] = MappingProxyType({})

    def moved_bytes_of(self, index):
        """Those of a step, or of an array of steps, counted from 0."""
        (first, growth), (every, less) = self.moved_bytes, self.shrinks
        return first + index * growth - index // every * less


class Floor(NamedTuple):
    """The least seconds that steps can take: of those bound by memory, by arithmetic and by a link."""

    memory_s: float
    arithmetic_s: float
    link_s: float = 0.0

    @property
    def seconds(self) -> float:
        return sum(self)

    @property
    def bound_by(self) -> str:
        """``memory``, ``arithmetic`` or ``link``, whichever takes the largest part."""
        return max(self._fields, key=lambda name: getattr(self, name)).removesuffix("_s")


class Peaks(NamedTuple):
    """The highest speeds measured on the machine.

    bandwidth: (bytes, bytes per second) for growing working sets: one that fits into a cache is read faster.
    flop_per_s: per dtype of arithmetic. link_bytes_per_s: of each link; empty where none was measured.
    """

    bandwidth: Sequence[tuple[int, float]]
    flop_per_s: Mapping[str, float]
    link_bytes_per_s: Mapping[str, float] = MappingProxyType({})

    def times(self, devices: int) -> Peaks:
        """Of so many devices that do equal parts of the work at the same time."""
        bandwidth = [(devices * size, devices * speed) for size, speed in self.bandwidth]
        return self._replace(bandwidth=bandwidth, flop_per_s={k: devices * v for k, v in self.flop_per_s.items()})

    def have(self, steps: Steps) -> bool:
        """Whether everything that these steps need was measured."""
        return steps.flop.keys() <= self.flop_per_s.keys() and steps.link_bytes.keys() <= self.link_bytes_per_s.keys()

    def bytes_per_s(self, working_sets_bytes):
        """For an array of working sets: each that of the largest measured one that is not larger. So it is rather too
        high than too low, as a ceiling has to be."""
        import numpy

        sizes, speeds = numpy.array(self.bandwidth).T
        return speeds[numpy.maximum(numpy.searchsorted(sizes, working_sets_bytes, side="right") - 1, 0)]


def prefill(shapes: Shapes, batch_size: int, prompt_tokens: int) -> Steps:
    """The step that reads the prompts and gives every row its first new token.

    Of a prompt's attention only what is causal counts: token p looks at p tokens, itself included.
    """
    tokens = batch_size * prompt_tokens
    moved_bytes = _moved_bytes(shapes, batch_size, tokens, shapes.prompt_kv_bytes)
    flop = _flop(shapes, batch_size, tokens, looked_at=tokens * (prompt_tokens + 1) // 2, growth=0)
    return Steps(1, (moved_bytes, 0), flop, link_bytes=shapes.link_bytes or {})


def decode(shapes: Shapes, batch_size: int, prompt_tokens: int, new_tokens: int) -> Steps:
    """The new_tokens - 1 steps after it, one token per row each.

    The i-th reads the keys and values of the prompt_tokens + i - 1 tokens before its own, and adds its own.
    """
    first_bytes = _moved_bytes(shapes, batch_size, batch_size, shapes.kv_bytes)
    first_bytes += batch_size * prompt_tokens * shapes.prompt_kv_bytes
    flop = _flop(shapes, batch_size, batch_size, looked_at=batch_size * (prompt_tokens + 1), growth=batch_size)
    every = shapes.residual_tokens or 1
    shrinks = (every, every * batch_size * (shapes.kv_bytes - shapes.prompt_kv_bytes))
    return Steps(new_tokens - 1, (first_bytes, batch_size * shapes.kv_bytes), flop, shrinks, shapes.link_bytes or {})


def _moved_bytes(shapes: Shapes, rows: int, tokens: int, kv_bytes: int) -> int:
    """Weights once, embeddings and new keys and values of each token; logits are written by the output layer and
    read to choose the token."""
    return shapes.weight_bytes + tokens * (shapes.lookup_bytes + kv_bytes) + 2 * rows * shapes.logit_bytes


def _flop(shapes: Shapes, rows: int, tokens: int, looked_at: int, growth: int) -> dict[str, tuple[int, int]]:
    """looked_at: (query, key) pairs in the first step; growth: how many more in each step after it."""
    first: Counter[str] = Counter()
    for matrix in shapes.matrices:
        positions = tokens if matrix.every_position else rows
        first[matrix.arithmetic] += 2 * positions * matrix.count * matrix.inputs * matrix.outputs
    # Queries times keys, and weights times values: 2 operations each per number of the head and pair.
    per_pair = 4 * shapes.attention_width
    first[shapes.attention_arithmetic] += per_pair * looked_at
    return {dtype: (n, per_pair * growth if dtype == shapes.attention_arithmetic else 0) for dtype, n in first.items()}


def floor(steps: Steps, peaks: Peaks) -> Floor:
    """The least time that these steps can take, one after the other."""
    import numpy

    index = numpy.arange(steps.count)
    moved_bytes = steps.moved_bytes_of(index)
    memory_s = moved_bytes / peaks.bytes_per_s(moved_bytes)
    arithmetic_s = sum((n + index * growth) / peaks.flop_per_s[dtype] for dtype, (n, growth) in steps.flop.items())
    link_s = max((n_bytes / peaks.link_bytes_per_s[link] for link, n_bytes in steps.link_bytes.items()), default=0.0)
    each_s = numpy.stack(numpy.broadcast_arrays(memory_s, arithmetic_s, link_s))
    slowest = each_s.argmax(axis=0)
    return Floor(*(float(times[slowest == n].sum()) for n, times in enumerate(each_s)))
