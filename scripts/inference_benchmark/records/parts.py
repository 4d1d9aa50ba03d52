"""What records consist of, key by key. docs/record.md is made from the types and what ``#:`` says."""

# No annotations as texts, from which it takes long to make a TypedDict: Snakemake imports this when it starts.
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

from msgspec import Meta

from inference_benchmark.records.check import RecordError

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[float, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
#: Seconds of each of several calls.
Samples = Annotated[list[Seconds], Meta(min_length=1)]


class Limit(TypedDict):
    name: str  #: memory_limit (of the configuration), device memory, host memory or a cgroup's file.
    bytes: Count  #: Size of the limit.


class Memory(TypedDict, total=False):
    #: After loading: bytes allocated on the GPU, or on the CPU the resident set size of the process, libraries
    #: included. Of a model that is split over processes, the sum over these.
    loaded_bytes: Count
    peak_rss_bytes: Count  #: CPU: peak resident set size of the process, or the sum over several.
    peak_allocated_bytes: Count  #: CUDA: peak memory of tensors.
    peak_reserved_bytes: Count  #: CUDA: peak device memory reserved by the engine's allocator.
    device_total_bytes: Count  #: CUDA: total memory of the device.
    #: CUDA, several GPUs: these three of each, which the ones above are the sums of.
    devices: list[dict[str, Count]]


class Energy(TypedDict):
    source: Literal["nvml", "rapl"]  #: The counter.
    scope: str  #: What the counter covers.
    joules: NotNegative  #: Joules during the timed calls.
    resolution_j: NotNegative  #: Uncertainty of joules: the energy of one update interval.
    seconds: NotNegative  #: Seconds between the two readings.
    update_interval_s: NotNegative  #: Seconds between two changes of the counter.


class Conditions(TypedDict, total=False):
    n_samples: Count  #: Number of samples.
    seconds: NotNegative  #: Duration of the timed part.
    usable_cpus: Positive  #: CPUs that the process may run on.
    #: Minimum, median and maximum of sampled values: clocks, temperature, power, utilisation, memory.
    gauges: dict[str, Any]
    #: Totals over the timed part: CPU seconds of the worker, of other processes and stolen; seconds throttled and under
    #: pressure; thermal throttle events.
    counters: dict[str, Any]
    gpu_throttle_reasons: dict[str, Any]  #: Number of samples in which NVML gave each reason for lower clocks.
    other_gpu_processes: list[Any]  #: Other processes seen on the GPU.
    errors: list[str]  #: Errors while reading.


class KernelTimes(TypedDict):
    memory_s: Samples  #: Seconds of each pass of a copy in the device's memory.
    moved_bytes: Positive  #: Bytes that a pass reads and writes.
    arithmetic_s: Samples  #: Seconds of each pass of float32 matrix products.
    flop: Positive  #: Floating-point operations of a pass.


class Yardstick(TypedDict, total=False):
    """Of the engine's yardstick, before and after the calls. Either may be missing."""

    before: KernelTimes
    after: KernelTimes


class FailedAttempt(TypedDict):
    attempt: Positive  #: Number of the attempt, from 1.
    ended_at: str  #: When Snakemake noticed its end; ISO 8601, UTC.
    job: str | None  #: Job id of the scheduler; null without a scheduler.
    #: End state given by the scheduler, such as TIMEOUT, OUT_OF_MEMORY, CANCELLED or NODE_FAIL; null if unknown.
    state: str | None
    node: str | None  #: Node name given by the scheduler; null if unknown.
    said: str | None  #: Last line of its log that reports a failure, or Snakemake's message.


@dataclass(frozen=True)
class Note:
    """A warning about a figure."""

    name: str  #: The rule, as docs/method.md explains it.
    message: str  #: The evidence, with figures.


@dataclass(frozen=True)
class Reason:
    """Why there is no result."""

    #: What the worker was doing. max-batch: nothing; a search had shown that the cell does not fit. other-cell:
    #: nothing; another cell of the same engine and precision had shown how it ends. search, answer: of a study.
    phase: Literal[
        "start", "load", "prompts", "warm-up", "measure", "first-token", "max-batch", "other-cell", "search", "answer"
    ]
    exception_type: str | None  #: Class of the exception, or name of the signal.
    message: str  #: Message of the exception, or an explanation.
    limit: Limit | None  #: The memory limit in force; null if none is known.
    #: For a kill: kernel counters before and after. For a library that ended the process: its last output. For a CUDA
    #: library that failed without a word of memory: the free bytes of the device. For max-batch: the search and its
    #: decisive try. For other-cell: the record of that cell. Otherwise empty.
    evidence: Mapping[str, Any]


#: The range of a sample: from the resolution of clocks to longer than anybody waits. Its figures are finite.
_LEAST_S, _MOST_S = 1e-9, 1e9


@dataclass(frozen=True)
class Run:
    """What one measuring process left. Raises RecordError where a sample is no time that a call can take."""

    load_s: NotNegative | None  #: Seconds to load the model from disk to the device; null if loading did not finish.
    #: Seconds of each warm-up call of the full shape. The first does all one-time work, and inspects the call (cache,
    #: dtypes, logits).
    warmup_s: tuple[Seconds, ...]
    #: Seconds of each timed generate call, from token ids on the host to token ids on the host.
    samples_s: tuple[Seconds, ...]
    #: Seconds of each timed call of the same shape with max_new_tokens=1: time to first token (TTFT). Empty if
    #: new_tokens is 1.
    first_token_s: tuple[Seconds, ...]
    #: SHA-256 digest (token ids as 8-byte little-endian integers) of every distinct answer of the full-length calls;
    #: more than one is flagged.
    tokens_sha256: tuple[str, ...]
    #: Bytes. Peaks are of the timed whole calls; if the cell ran out of memory, of everything since loading.
    memory: Memory
    #: Energy of the device during the timed whole calls; null without a counter or without valid readings.
    energy: Energy | None
    #: State of device and machine while calls were timed, sampled by the parent process; empty if no call was timed. A
    #: fact that cannot be read is absent.
    conditions: Conditions
    #: Times of two short fixed kernels on the device and threads of the cell, right after the start and after the last
    #: call: how fast the machine itself was. Absent where they were not timed.
    yardstick: Yardstick | None = None
    #: Seconds that it waited, before its timed calls, for others to leave the CPUs alone. Absent where it did not wait.
    waited_s: NotNegative | None = None
    #: Number of the warm-up calls up to the last that compiled, or recorded a CUDA graph. Absent where none did.
    compiled_calls: Positive | None = None

    def __post_init__(self) -> None:
        for name in ("warmup_s", "samples_s", "first_token_s"):
            if not all(_LEAST_S <= seconds <= _MOST_S for seconds in getattr(self, name)):
                allowed = f"{_LEAST_S:g} to {_MOST_S:g}"
                raise RecordError(f"{name} holds a value that is no finite number of seconds above 0 ({allowed})")


@dataclass(frozen=True)
class SetAside:
    """A disturbed measurement of a round, which was made again."""

    run: Run  #: What it left, with the keys of runs[].
    reason: str  #: What disturbed it.


@dataclass(frozen=True)
class Stability:
    """Whether the samples of a cell repeat well enough to rely on their means; see analysis/stability."""

    stable: bool  #: Whether the cell breaks no rule of docs/method.md: reasons is empty.
    #: Warnings about the cell; docs/method.md explains each name. Those about first tokens were added later.
    reasons: tuple[Note, ...]
    #: Number of samples_s outside Tukey's fences of their process; none is dropped. null below five samples.
    outliers: Count | None
    #: Change from first to last of samples_s as a fraction of the median; 0 without a significant trend; null below
    #: five samples.
    drift: float | None
