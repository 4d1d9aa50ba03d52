"""What runs during a call, by torch's profiler: operators on the CPU, kernels on CUDA."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from inference_benchmark.analysis.timeline import Profile, Work

#: The name of the call in its profile.
_CALL = "generate"
_NS = 1e9


def profiled(call: Callable[[], Any], device: torch.device, trace: Path | None) -> Profile:
    """What ran on the device during a call.

    On the CPU these are the operators of the calling thread, which may be nested. On CUDA they are kernels and copies,
    each with the operator that launched it. The call ends with the device idle. trace: as in Engine.profile.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiler, record_function(_CALL):
        call()
    events = profiler.profiler.kineto_results.events()
    if trace:
        unfinished = trace.with_name(f".{trace.name}")
        profiler.export_chrome_trace(str(unfinished))
        os.replace(unfinished, trace)
    whole = next(event for event in events if event.name() == _CALL and event.device_type() == DeviceType.CPU)
    work = _on_cuda(events) if device.type == "cuda" else _on_cpu(events, whole)
    return Profile(whole.duration_ns() / _NS, work)


def _on_cpu(events, call) -> list[Work]:
    thread, begins, ends = call.start_thread_id(), call.start_ns(), call.start_ns() + call.duration_ns()
    return [
        _work(event, begins)
        for event in events
        if event.start_thread_id() == thread and begins <= event.start_ns() < ends and event.name() != _CALL
    ]


def _on_cuda(events) -> list[Work]:
    # Of annotations, such as those of compiled graphs, the device has spans around all of their kernels.
    kernels = [each for each in events if each.device_type() == DeviceType.CUDA and not each.is_user_annotation()]
    # Calls of CUDA's runtime are linked to operators, too. Their own ids are of another numbering.
    operators = (each for each in events if each.device_type() == DeviceType.CPU and not each.linked_correlation_id())
    names = {each.correlation_id(): each.name() for each in operators}
    began = min((event.start_ns() for event in kernels), default=0)
    return [_work(event, began, names.get(event.linked_correlation_id(), "")) for event in kernels]


def _work(event, zero_ns: int, called_by: str = "") -> Work:
    """zero_ns: the zero of the clock. A float cannot hold nanoseconds since the epoch."""
    begins_ns = event.start_ns() - zero_ns
    return Work(event.name(), begins_ns / _NS, (begins_ns + event.duration_ns()) / _NS, called_by)
