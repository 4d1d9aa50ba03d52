"""Kernels of a made-up profile of CUDA."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from torch.autograd import DeviceType

from inference_benchmark.engines import torch_profile


@dataclass
class MadeUp:
    """An event of a nanosecond. number: its correlation id. linked: that of the operator that it belongs to, 0 for one."""

    name: str
    device: DeviceType
    number: int
    linked: int = 0
    is_annotation: bool = False

    def as_in_torch(self) -> SimpleNamespace:
        facts = {
            "name": self.name,
            "device_type": self.device,
            "correlation_id": self.number,
            "linked_correlation_id": self.linked,
            "is_user_annotation": self.is_annotation,
            "start_ns": self.number,
            "duration_ns": 1,
        }
        return SimpleNamespace(**{name: lambda value=value: value for name, value in facts.items()})


def test_a_kernel_belongs_to_the_operator_that_launched_it():
    """Calls of CUDA's runtime have ids of their own, and here one has that of an operator."""
    cpu, cuda = DeviceType.CPU, DeviceType.CUDA
    events = [
        MadeUp("generate", cpu, 1, is_annotation=True),
        MadeUp("aten::bmm", cpu, 7),
        MadeUp("cudaLaunchKernel", cpu, 4, linked=7),
        MadeUp("aten::mm", cpu, 9),
        MadeUp("cudaLaunchKernel", cpu, 7, linked=9),
        MadeUp("generate", cuda, 1, linked=1, is_annotation=True),
        MadeUp("## Call CompiledFxGraph ##", cuda, 3, linked=3, is_annotation=True),
        MadeUp("ampere_sgemm_32x32_nn", cuda, 4, linked=7),
        MadeUp("ampere_sgemm_32x32_nn", cuda, 7, linked=9),
    ]
    work = torch_profile._on_cuda([each.as_in_torch() for each in events])
    assert [(each.called_by, each.kind) for each in work] == [("aten::bmm", "attention"), ("aten::mm", "products")]
