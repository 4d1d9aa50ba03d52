"""Where the time of a generate call goes: step by step, and by kind of work. Pure functions."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

from inference_benchmark.analysis import descriptive

#: Kinds of work, each with its name for a person. ``outside`` is the time in which none of the others runs.
KINDS = {
    "products": "matrix products",
    "attention": "attention",
    "quantising": "quantising",
    "copies": "copies",
    "other": "other kernels",
    "outside": "outside kernels",
}
#: New tokens of the profiled call, at most: a profile of a hundred steps has some 100,000 events.
PROFILED_TOKENS = 128

#: Patterns of names in torch's profile, of operators, kernels of CUDA and kernels that torch compiled, by kind of work.
#: The first that matches counts.
_NAMES = {
    "quantising": (
        r"quant(?!.*(linear|gemm|matmul|_mm))|mm_dequant|int8_(double|vectorwise)|outlier|rowwise_absmax|"
        r"choose_qparams|kInt8|kQuantize|kDequantize|kgetColRow"
    ),
    "attention": (
        r"attention|flash_fwd|flash_attn|fmha|aten::(bmm|baddbmm|_?softmax|_safe_softmax)$|softmax|"
        r"batched_gemm|flex_"
    ),
    "products": (
        r"aten::(mm|addmm|addmv|mv|linalg_vecdot|_int_mm|_scaled_mm|_grouped_mm|_weight_int\w+_mm\w*|dot)$|"
        r"gemm|gemv|nvjet|cutlass|xmma|splitK|mkl(dnn)?\b.*linear|onednn|matmul_kernel|_mm_|mm_kernel|MatMul|"
        r"int8_(scaled_mm|linear_matmul|mixed_scaled_mm)|gemm_4bit|tinygemm"
    ),
    "copies": (
        r"aten::(copy_|cat|clone|index|index_select|index_copy_?|index_put_?|_index_put_impl_|gather|scatter_?|repeat|"
        r"embedding|zero_|fill_|_local_scalar_dense)$|memcpy|memset|CatArray|copy_kernel|direct_copy|indexSelect|"
        r"index_elementwise|gatherTopK|vectorized_gather|FillFunctor"
    ),
    "outside": (
        # What prepares the work of others: views, allocations, dispatch, checks of compiled code.
        r"aten::(view|as_strided|_reshape_alias|reshape|transpose|t|permute|expand|expand_as|select|slice|narrow|"
        r"squeeze|unsqueeze|unbind|split|split_with_sizes|chunk|detach|alias|lift_fresh|empty|empty_like|empty_strided|"
        r"new_empty|resize_|to|_to_copy|contiguous|linear|matmul|_unsafe_view|resolve_conj|resolve_neg|item|is_nonzero|"
        r"set_|result_type|flatten|unflatten)$|^detach|TorchDynamo|Torch-Compiled|AOTDispatcher|Pregraph|"
        r"^cuda[A-Z]|^cu[A-Z]\w+Kernel|^ProfilerStep|Runtime Triggered|Lazy Function Loading"
    ),
}
_PATTERNS = {kind: re.compile(pattern, re.IGNORECASE) for kind, pattern in _NAMES.items()}
#: Kinds that an operator passes on to all operators and kernels that it calls.
_INHERITED = ("quantising", "attention")


class Work(NamedTuple):
    """An operator or kernel in a profile. called_by: the operator that launched a kernel; "" if unknown."""

    name: str
    begins_s: float
    ends_s: float
    called_by: str = ""

    @property
    def kind(self) -> str:
        """One of KINDS: by the operator that launched it if that has one, else by its name."""
        by_caller = kind_of(self.called_by)
        return by_caller if by_caller not in ("outside", "other") else kind_of(self.name)


class Profile(NamedTuple):
    """What ran on the device during a call of call_s seconds."""

    call_s: float
    work: Sequence[Work]


def kind_of(name: str) -> str:
    """One of KINDS, for the name of an operator or kernel; ``other`` if no pattern matches."""
    return next((kind for kind, pattern in _PATTERNS.items() if pattern.search(name)), "other")


def seconds_by_name(work: Iterable[Work]) -> dict[tuple[str, str], float]:
    """{(kind, name): seconds}. If operators call others, or kernels overlap, a moment counts for the one that began
    last. So the seconds add up to the time in which any ran."""
    seconds: Counter[tuple[str, str]] = Counter()
    running: list[tuple[float, str, str]] = []  # end, kind, name
    now = 0.0

    def advance(moment: float) -> None:
        nonlocal now
        while running and now < moment:
            ends_s, kind, name = running[-1]
            if ends_s > now:
                until = min(ends_s, moment)
                seconds[kind, name] += until - now
                now = until
            if ends_s <= now:
                running.pop()
        now = max(now, moment)

    for each in sorted(work, key=lambda each: (each.begins_s, -each.ends_s)):
        advance(each.begins_s)
        caller = next((kind for ends_s, kind, _ in reversed(running) if ends_s >= each.ends_s), None)
        running.append((each.ends_s, caller if caller in _INHERITED else each.kind, each.name))
    advance(max((ends_s for ends_s, _, _ in running), default=now))
    return dict(seconds)


def profile_result(profile: Profile, new_tokens: int) -> dict[str, Any]:
    """The profile of a call of new_tokens, as the record has it, with the 20 names that ran longest."""
    by_name = seconds_by_name(profile.work)
    kinds = dict.fromkeys(KINDS, 0.0)
    for (kind, _), seconds in by_name.items():
        kinds[kind] += seconds
    del kinds["outside"]
    counts = Counter(each.name for each in profile.work)
    longest = sorted(by_name.items(), key=lambda item: -item[1])[:20]
    return {
        "kind": "profile",
        "new_tokens": new_tokens,
        "call_s": profile.call_s,
        "kinds_s": kinds,
        "longest": [
            {"name": name, "kind": kind, "count": counts[name], "seconds": seconds} for (kind, name), seconds in longest
        ],
    }


@dataclass(frozen=True)
class Timeline:
    """The figures of a timeline study, from its results.

    calls: for each observed call the seconds of its steps, the first being prefill. plain_s, observed_s: seconds of the
    calls that nothing observed, and of those whose steps were timed. memory_bytes: in use after each step; empty if
    unknown. profile: as profile_result; None without one.
    """

    calls: tuple[tuple[float, ...], ...]
    plain_s: tuple[float, ...]
    observed_s: tuple[float, ...]
    memory_bytes: tuple[int, ...]
    profile: Mapping[str, Any] | None

    @classmethod
    def of(cls, results: Iterable[Mapping[str, Any]]) -> Self:
        """From the results of the record."""
        parts = {each["kind"]: each for each in results}
        steps = parts["steps"]
        return cls(
            calls=tuple(map(tuple, steps["step_s"])),
            plain_s=tuple(steps["plain_s"]),
            observed_s=tuple(steps["observed_s"]),
            memory_bytes=tuple(parts.get("memory", {}).get("bytes", ())),
            profile=parts.get("profile"),
        )

    @cached_property
    def step_s(self) -> tuple[float, ...]:
        """The median over the calls of each step."""
        return tuple(descriptive.percentile(step, 50) for step in zip(*self.calls, strict=True))

    @property
    def decode_s(self) -> tuple[float, ...]:
        """The medians of the steps after the first token."""
        return self.step_s[1:]

    def decode_percentile_s(self, percent: float) -> float | None:
        """Of all steps after the first token, of all calls; None if there are none."""
        steps = [step for call in self.calls for step in call[1:]]
        return descriptive.percentile(steps, percent) if steps else None

    @property
    def call_s(self) -> float:
        """The steps of a call together: the mean over the calls."""
        return descriptive.mean([sum(call) for call in self.calls])

    @property
    def growth(self) -> float | None:
        """How much longer the last decode step is than the first, as a part of the median step, by
        descriptive.median_slope of at most 400 steps; None for fewer than five."""
        if len(self.decode_s) < 5:
            return None
        steps = list(enumerate(self.decode_s))[:: math.ceil(len(self.decode_s) / 400)]
        return descriptive.median_slope(steps) * (len(self.decode_s) - 1) / descriptive.percentile(self.decode_s, 50)

    @property
    def memory_growth_bytes(self) -> int | None:
        """From after the first step to after the last."""
        return self.memory_bytes[-1] - self.memory_bytes[0] if self.memory_bytes else None

    @property
    def observing_cost(self) -> float:
        """The cost of timing the steps, as a part of a call that nothing observes: by the medians."""
        return descriptive.percentile(self.observed_s, 50) / descriptive.percentile(self.plain_s, 50) - 1

    @property
    def profiling_cost(self) -> float | None:
        """The cost of profiling, as a part of the same steps without the profile."""
        return self.profile["call_s"] / self._profiled_steps_s - 1 if self.profile else None

    @property
    def shares(self) -> dict[str, float] | None:
        """The parts of a call by kind of work, which add up to 1; None without a profile.

        The time of kernels is that in the profile. The rest of the same steps without the profile is ``outside``,
        because profiling mainly makes that longer. It is 0 if kernels alone take longer than those steps.
        """
        if self.profile is None:
            return None
        kinds = self.profile["kinds_s"]
        kernels_s = sum(kinds.values())
        whole_s = max(kernels_s, self._profiled_steps_s)
        return {**{kind: seconds / whole_s for kind, seconds in kinds.items()}, "outside": 1 - kernels_s / whole_s}

    @property
    def _profiled_steps_s(self) -> float:
        return sum(self.step_s[: self.profile["new_tokens"]])
