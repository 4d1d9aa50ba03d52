"""What studies leave, by their kind, key by key. docs/record.md is made from the types and what ``#:`` says."""

# No annotations as texts, from which it takes long to make a TypedDict: Snakemake imports this when it starts.
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

from inference_benchmark.records.check import check_known, checked
from inference_benchmark.records.parts import Count, NotNegative, Positive, Samples, Seconds, Share


class CeilingsResult(TypedDict):
    kind: Literal["bandwidth", "matmul", "link"]  #: The kind of ceiling.
    #: The kernel. bandwidth: copy, sum or matrix-vector. link: read or mapped (disk), copy (host). matmul: torch.mm,
    #: torch.nn.functional.linear, torch._int_mm or torch.ops.quantized.linear; in parentheses layout or engine.
    kernel: Literal[
        "copy", "sum", "matrix-vector", "read", "mapped",
        "torch.mm", "torch.nn.functional.linear", "torch.nn.functional.linear (mkldnn)",
        "torch._int_mm", "torch._int_mm (transposed)",
        "torch.ops.quantized.linear (fbgemm)", "torch.ops.quantized.linear (onednn)",
        "torch.ops.quantized.linear (qnnpack)",
    ]  # fmt: skip
    working_set_bytes: NotRequired[Positive]  #: bandwidth: bytes of memory that one call accesses.
    #: bandwidth: bytes that one call reads plus bytes that it writes. link: bytes that come over it.
    moved_bytes: NotRequired[Positive]
    link: NotRequired[Literal["disk", "host"]]  #: link: disk to host, or host to device.
    dtype: NotRequired[Literal["float32", "tf32", "bfloat16", "float16", "int8"]]  #: matmul: dtype of the operands.
    rows: NotRequired[Positive]  #: matmul: rows of activations.
    inputs: NotRequired[Positive]  #: matmul: columns of activations.
    outputs: NotRequired[Positive]  #: matmul: columns of the product.
    flop: NotRequired[Positive]  #: matmul: operations of one call; a multiply-add counts as two.
    samples_s: Samples  #: Seconds of each call; with calls_per_sample, the mean of that many calls in a row.
    calls_per_sample: NotRequired[Annotated[int, Meta(ge=2)]]  #: CUDA: calls between two events; absent if 1.


class Try(TypedDict):
    batch_size: Positive  #: Batch size of the try.
    fits: bool  #: Whether two full-length calls succeeded.
    exception_type: str | None  #: Class of the exception, or name of the signal; null if it fits.
    message: str | None  #: Message of the exception; null if it fits.
    memory: dict[str, Any]  #: Bytes, as for a cell; peaks since the start of the try.
    #: Why this means out of memory, as reason.evidence of a cell; absent where the exception says so. record, ended_at:
    #: the try is the measurement of a cell, in that record.
    evidence: NotRequired[dict[str, Any]]


class MeanMax(TypedDict):
    """Over all steps; None where a logit is not finite."""

    mean: float | None
    max: float | None


class Divergence(TypedDict):
    rows: Positive  #: Number of prompts.
    steps: Positive  #: Compared tokens per answer.
    #: Fraction of greedy tokens equal to those of hf in fp32; each answer follows its own tokens.
    token_agreement: Share
    #: For each row, the first step (from 0) whose token differs; null if none does.
    first_difference: list[Count | None]
    #: Fraction of steps that choose the token of hf in fp32, given the previous tokens of hf in fp32.
    next_token_agreement: Share
    #: Relative error of the logits, given the same previous tokens: norm of the difference to hf in fp32 over the norm
    #: of hf in fp32, both without their mean. Mean and maximum over all steps; null if a logit is not finite.
    logits_error: MeanMax
    #: Kullback-Leibler divergence of the next-token distribution from that of hf in fp32, given the same previous
    #: tokens, in nats. Mean and maximum over all steps; null if a logit is not finite.
    kl_nats: MeanMax


class BatchResult(TypedDict):
    batch_size: Positive
    rows: list[Count]  #: The compared rows, from 0: the first seven and the last.
    steps: Positive  #: Compared tokens per answer.
    #: Fraction of greedy tokens equal to those of the same prompts answered one by one; each follows its own tokens.
    token_agreement: Share
    first_difference: list[Count | None]  #: For each row, the first step (from 0) whose token differs; null if none.
    #: For each row that differs, how far apart the logits of the two tokens are at that step, at batch 1, in standard
    #: deviations of all logits; null if none differs or a logit is not finite.
    gaps: list[NotNegative | None]


class QualityWindow(TypedDict):
    """A window of the text, by analysis.quality.scores."""

    #: Mean negative log likelihood of the scored tokens, given all tokens of the window before each, in nats; null if a
    #: logit is not finite.
    nll_nats: float | None
    reference_nll_nats: float | None  #: The same of hf in fp32.
    #: For each scored token, the Kullback-Leibler divergence of the distribution in its place from that of hf in fp32,
    #: in nats, to six digits; null if a logit is not finite.
    kl_nats: Annotated[list[NotNegative], Meta(min_length=1)] | None
    same_best: Count  #: Number of scored tokens in whose place the best token is that of hf in fp32.


class Operator(TypedDict):
    """An operator or a kernel in a profile."""

    name: str
    kind: Literal["products", "attention", "quantising", "copies", "other", "outside"]
    count: Positive
    seconds: NotNegative


class TimelinePart(TypedDict):
    #: The part of the timeline. steps: calls that nothing observes and calls whose steps are timed, in turn. memory: of
    #: a call of its own. profile: of one profiled call; absent where torch's profiler does not see the engine or any
    #: kernel, or memory ran out.
    kind: Literal["steps", "memory", "profile"]
    #: steps: for each call, the seconds of each step, on the device. The first is from the beginning of the call,
    #: prefill inside.
    step_s: NotRequired[Annotated[list[Annotated[list[float], Meta(min_length=1)]], Meta(min_length=1)]]
    observed_s: NotRequired[Samples]  #: steps: seconds of the calls whose steps were timed, host to host.
    plain_s: NotRequired[Samples]  #: steps: seconds of the calls before each of them, which nothing observes.
    #: memory: in use after each step: allocated on the device, or resident of the host.
    bytes: NotRequired[Annotated[list[Count], Meta(min_length=1)]]
    new_tokens: NotRequired[Positive]  #: profile: new tokens of the profiled call, at most 128.
    call_s: NotRequired[Seconds]  #: profile: seconds of the profiled call; a profile makes it longer.
    #: profile: seconds of the device by kind of work: products, attention, quantising, copies and other. In the rest of
    #: the call none runs.
    kinds_s: NotRequired[dict[str, NotNegative]]
    #: profile: the operators or kernels that took longest, with kind, number of runs and seconds, less what others did
    #: that they call.
    longest: NotRequired[list[Operator]]


#: What each of the results of a study is, by the kind of study.
RESULTS = {
    "ceilings": CeilingsResult,
    "max-batch": Try,
    "divergence": Divergence,
    "batch-invariance": BatchResult,
    "quality": QualityWindow,
    "timeline": TimelinePart,
}


def check_results(kind: str, results: list[Any]) -> None:
    """Raises RecordError where these are not the results of a study of this kind."""
    check_known(results, checked(results, list[RESULTS[kind]], "results"), "results")
