"""Measure the ceilings of this device: memory bandwidth over working sets, matrix products over dtypes; if asked for,
also the links over which weights come that are kept elsewhere.

Several kernels and shapes are tried at each point; the fastest is the ceiling. Operands are random: zeros switch fewer
bits, which makes some devices faster.
"""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.nn.functional import linear

from inference_benchmark.experiment.studies import study_from_json
from inference_benchmark.machine import cgroups, quiet
from inference_benchmark.machine.hardware import default_threads
from inference_benchmark.models.cache import cache_root
from inference_benchmark.worker.engine_session import EngineSession

#: Working sets in bytes: from one that fits into a cache to one that fits into none.
_LEAST, _MOST = {"cpu": 2**21, "cuda": 2**24}, {"cpu": 2**30, "cuda": 2**33}
#: Part of the free memory that the operand of a kernel may take; copying needs two.
_MEMORY_SHARE = 0.25
#: Rows of activations that weights of (side, side) are multiplied by. On a CPU the smallest are so few that an emulated
#: dtype does not take a minute; with so few, a GPU would only wait for its memory.
_ROWS = {"cpu": (16, 128, 1024, 4096), "cuda": (1024, 8192)}
_SIDE = {"cpu": 2048, "cuda": 8192}
_DTYPES = ("float32", "bfloat16", "float16", "int8")
#: Samples of a kernel at a size are at least this many and take at least _MIN_S, but at most _MAX_SAMPLES and _MOST_S.
_MIN_SAMPLES, _MAX_SAMPLES, _MIN_S, _MOST_S = 5, 1000, 0.1, 1.0
#: On CUDA a sample is of as many calls as take this long, at most as many as fit into the queue of the GPU.
_LEAST_SAMPLE_S, _MOST_CALLS = 1e-3, 100
#: Clock cycles for which the GPU is kept busy: at first per queued call (about 20 us), at most in all (about 30 ms).
_FIRST_CYCLES, _MOST_CYCLES = 40_000, 2**26
#: Bytes that come over a link at a time: more than fit into a cache of the CPU.
_LINK_BYTES = 2**28
#: A shape that would take longer than this is left out, as all larger ones.
_LONGEST_S = 0.25

Kernel = Callable[[], Any]


def run(session: EngineSession, subject: str, checkpoint: None, patience_s: float) -> None:
    """subject: the study as JSON text. patience_s: the longest wait for others to leave the CPUs alone. Sends a result
    with all samples for each kernel and size."""
    load, study, emit = quiet.OtherLoad(), study_from_json(subject), session.emit
    torch.set_num_threads(study.threads or default_threads())
    device = torch.device("cuda", 0) if study.device == "cuda" else torch.device("cpu")
    timer = CudaTimer if device.type == "cuda" else CpuTimer
    tf32 = torch.backends.cuda.matmul.allow_tf32
    operand = torch.rand(1024, 1024, device=device)
    operand @ operand  # starts the device
    session.wait_for_quiet(patience_s, load)
    session.enter("measure")
    for facts, kernel in _memory_kernels(device):
        emit(results=[{"kind": "bandwidth", **samples(kernel, timer), **facts}])
    for dtype in (*_DTYPES, "tf32") if tf32 and device.type == "cuda" else _DTYPES:
        torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
        for result in _products(device, dtype, timer):
            emit(results=[{"kind": "matmul", "dtype": dtype, **result}])
    for result in _links(device, timer) if study.links else ():
        emit(results=[{"kind": "link", **result}])
    emit(model={"threads": torch.get_num_threads(), "cuda": torch.version.cuda, "tf32": tf32})


def _memory_kernels(device: torch.device) -> Iterator[tuple[dict[str, Any], Kernel]]:
    """(facts, kernel): copy moves each byte twice; sum and the product with a vector read each once."""
    if device.type == "cuda":
        memory_bytes = torch.cuda.mem_get_info(device)[0]
    else:
        import psutil

        free = (psutil.virtual_memory().available, cgroups.free_memory_bytes())
        memory_bytes = min(n_bytes for n_bytes in free if n_bytes is not None)
    most = min(_MOST[device.type], int(memory_bytes * _MEMORY_SHARE))
    columns = 2048
    source = torch.rand(most // 4 // columns, columns, device=device)
    vector, target = torch.rand(columns, device=device), torch.empty_like(source)
    size = _LEAST[device.type]
    while size <= source.numel() * 4:
        part = source[: size // 4 // columns]
        half, copied = part[: len(part) // 2], target[: len(part) // 2]
        facts = {"working_set_bytes": part.numel() * 4, "moved_bytes": part.numel() * 4}
        yield {**facts, "kernel": "copy"}, lambda half=half, copied=copied: copied.copy_(half)
        yield {**facts, "kernel": "sum"}, part.sum
        yield {**facts, "kernel": "matrix-vector"}, lambda part=part: part @ vector
        size *= 2


def _products(device: torch.device, dtype: str, timer: type[CpuTimer | CudaTimer]) -> Iterator[dict[str, Any]]:
    """Activations (rows, side) times weights (side, side), by every kernel that the library has for them here."""
    side, sizes = _SIDE[device.type], _ROWS[device.type]
    activations, weights = _random(device, dtype, sizes[-1], side), _random(device, dtype, side, side)
    for name, make in product_kernels(device.type, dtype).items():
        speed = None
        for rows in sizes:
            flop = 2 * rows * side * side
            if speed and flop / speed > _LONGEST_S:
                break
            try:
                taken = samples(make(activations[:rows], weights), timer)
            except (RuntimeError, AttributeError):  # the library has no such product of this dtype or shape here
                continue
            speed = flop / min(taken["samples_s"])
            yield {"kernel": name, "rows": rows, "inputs": side, "outputs": side, "flop": flop, **taken}


def _links(device: torch.device, timer: type[CpuTimer | CudaTimer]) -> Iterator[dict[str, Any]]:
    """From disk to host, as a copy and as a mapped file, and on CUDA from host to device.

    The file has just been written, so it comes from the page cache of the system, as weights do in every step but the
    first where the host has memory for them. A ceiling must not be lower; a disk itself is slower.
    """
    values = torch.rand(min(_LINK_BYTES, _MOST[device.type] // 4) // 4)
    moved = {"moved_bytes": values.nbytes}
    folder = cache_root()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        values.numpy().tofile(file.name)
        buffer = [bytearray(values.nbytes)]
        kernels = {
            "read": lambda: os.preadv(file.fileno(), buffer, 0),
            "mapped": lambda: torch.from_file(file.name, size=len(values)).sum(),
        }
        for name, kernel in kernels.items():
            yield {"link": "disk", "kernel": name, **moved, **samples(kernel, CpuTimer)}
    if device.type == "cuda":
        pinned, target = values.pin_memory(), torch.empty_like(values, device=device)
        taken = samples(lambda: target.copy_(pinned, non_blocking=True), timer)
        yield {"link": "host", "kernel": "copy", **moved, **taken}


def product_kernels(device: str, dtype: str) -> dict[str, Callable[[torch.Tensor, torch.Tensor], Kernel]]:
    """Names of kernels, each with a function that makes it for activations (rows, inputs) and square weights.
    linear takes the weights transposed, as linear layers keep them; it is another kernel than mm in most libraries."""
    if dtype == "int8":
        kernels = {
            "torch._int_mm": lambda a, w: lambda: torch._int_mm(a, w),
            "torch._int_mm (transposed)": lambda a, w: lambda: torch._int_mm(a, w.t()),
        }
        engines = torch.backends.quantized.supported_engines if device == "cpu" else ()
        # The engine x86 is not listed: it uses one of these.
        for engine in (each for each in ("fbgemm", "onednn", "qnnpack") if each in engines):
            kernels[f"torch.ops.quantized.linear ({engine})"] = partial(_quantized_linear, engine)
        return kernels
    kernels = {
        "torch.mm": lambda a, w: lambda: torch.mm(a, w),
        "torch.nn.functional.linear": lambda a, w: lambda: linear(a, w),
    }
    if device == "cpu" and dtype == "float32":  # for bf16 and fp16, linear uses oneDNN where it can
        kernels["torch.nn.functional.linear (mkldnn)"] = lambda a, w: partial(linear, a.to_mkldnn(), w.to_mkldnn())
    return kernels


def _quantized_linear(engine: str, activations: torch.Tensor, weights: torch.Tensor) -> Kernel:
    """A kernel of unsigned 8-bit activations, which these engines require, and of weights packed once."""
    torch.backends.quantized.engine = engine
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)  # deprecated
        quantized = torch._make_per_tensor_quantized_tensor(weights, 0.05, 0)
        inputs = torch._make_per_tensor_quantized_tensor(activations.view(torch.uint8), 0.05, 128)
    packed = torch.ops.quantized.linear_prepack(quantized, None)
    return lambda: torch.ops.quantized.linear(inputs, packed, 1.0, 0)


def _random(device: torch.device, dtype: str, *shape: int) -> torch.Tensor:
    if dtype == "int8":
        return torch.randint(-127, 128, shape, dtype=torch.int8, device=device)
    return torch.randn(shape, device=device).to(torch.float32 if dtype == "tf32" else getattr(torch, dtype))


class CpuTimer:
    """Times calls by the clock of the host."""

    def calls_per_sample(self, call_s: float) -> int:
        return 1

    def seconds(self, kernel: Kernel, calls: int) -> float:
        """Seconds of so many calls, one after the other."""
        began = time.perf_counter()
        for _ in range(calls):
            kernel()
        return time.perf_counter() - began


class CudaTimer:
    """Times calls of one kernel by events on the GPU. They queue while the GPU is kept busy, and then run without gaps.

    On an idle GPU the launch of the first kernel (5 to 10 us, as long as reading 16 MiB) would count as its time. So
    would every launch that takes longer than the kernel before it.
    """

    def __init__(self) -> None:
        self.cycles_per_call = _FIRST_CYCLES

    def calls_per_sample(self, call_s: float) -> int:
        return max(1, min(_MOST_CALLS, round(_LEAST_SAMPLE_S / call_s)))

    def seconds(self, kernel: Kernel, calls: int) -> float:
        """As CpuTimer, without the launches."""
        while True:
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            cycles = min(self.cycles_per_call * calls, _MOST_CYCLES)
            torch.cuda._sleep(cycles)
            before.record()
            for _ in range(calls):
                kernel()
            after.record()
            was_idle = before.query()  # before all calls were in its queue
            after.synchronize()
            if not was_idle or cycles == _MOST_CYCLES:
                return before.elapsed_time(after) / 1000
            self.cycles_per_call *= 2


def samples(kernel: Kernel, new_timer: type[CpuTimer | CudaTimer]) -> dict[str, Any]:
    """``samples_s``, and ``calls_per_sample`` if each is the mean of several calls in a row."""
    kernel()  # does all one-time work, which may take long to launch
    timer = new_timer()  # what another kernel needed would keep the GPU busy for nothing
    calls = timer.calls_per_sample(timer.seconds(kernel, 1))
    samples_s, total_s = [], 0.0
    while total_s < _MOST_S and (len(samples_s) < _MIN_SAMPLES or (total_s < _MIN_S and len(samples_s) < _MAX_SAMPLES)):
        seconds = timer.seconds(kernel, calls)
        total_s += seconds
        samples_s.append(seconds / calls)
    return {"samples_s": samples_s} | ({"calls_per_sample": calls} if calls > 1 else {})
