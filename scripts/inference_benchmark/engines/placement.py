"""Where the weights of a transformers model are: on one device, on several, or partly in host memory or on disk.

accelerate places them layer by layer and, in each step, copies those that are elsewhere to the device. What is said
here is read from the loaded model.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from inference_benchmark.engines import shapes
from inference_benchmark.engines.options import gpus_of, offloads
from inference_benchmark.machine import cgroups

#: The part of a device's memory that weights may take. transformers leaves as much for the rest if it is told nothing.
_WEIGHTS_SHARE = 0.9
#: Where weights that do not fit are, by placement.
_ELSEWHERE = {"cpu-offload": "cpu", "disk-offload": "disk"}
#: What bytes pass on their way to a CUDA device, by where they are. On a CPU those on disk pass the first only.
_LINKS = {"cpu": ("host",), "disk": ("disk", "host")}


def arguments(options: Mapping[str, Any], devices: Sequence[torch.device], memory_bytes: int) -> dict[str, Any]:
    """The arguments of from_pretrained that place weights. memory_bytes: of each device."""
    placement = options.get("placement", "one")
    if placement == "one":
        return {"device_map": {"": devices[0]}}
    if placement == "tensor":
        from transformers.distributed import DistributedConfig  # transformers 4 has it without tp_size, or not at all

        return {"distributed_config": DistributedConfig(tp_size=gpus_of(options))}
    # An explicit limit makes the map follow from the sizes alone, and not from what is free at the moment.
    budget = int(_WEIGHTS_SHARE * memory_bytes)
    most: dict[int | str, int] = {"cpu" if each.type == "cpu" else each.index: budget for each in devices}
    if placement == "cpu-offload":
        most["cpu"] = host_memory_bytes()
    return {"device_map": "balanced", "max_memory": most}


def host_memory_bytes() -> int:
    """The memory of the host, or of the cgroup of this process."""
    limit = cgroups.memory_limit()
    return limit["bytes"] if limit else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def tie(model: torch.nn.Module) -> None:
    """Make tied weights that accelerate keeps elsewhere one parameter again. Its hooks leave a placeholder for each,
    and they would be counted twice."""
    for name, source in getattr(model, "all_tied_weights_keys", {}).items():
        module, _, last = name.rpartition(".")
        if (tensor := model.get_parameter(source)).device.type == "meta":
            setattr(model.get_submodule(module), last, tensor)


def places(model: torch.nn.Module) -> dict[str, dict[str, int]]:
    """{device, or cpu or disk for what is copied from there in each step: modules with weights there, and bytes}."""
    found: dict[str, dict[str, int]] = {}
    counted: set[int] = set()
    for module in model.modules():
        own = list(_weights(module))
        for place in {place for _, place in own}:
            found.setdefault(place, {"modules": 0, "bytes": 0})["modules"] += 1
        for weight, place in own:
            n_bytes = shapes.stored_bytes(shapes.part_here(weight))
            found[place]["bytes"] += 0 if id(weight) in counted else n_bytes
            counted.add(id(weight))
    return found


def link_bytes(model: torch.nn.Module, device: torch.device) -> dict[str, int]:
    """{link: bytes of weights that pass it in each step}: ``disk`` to host, ``host`` to a CUDA device. Of an embedding
    table single rows would do, so that it does not count."""
    found: dict[str, int] = {}
    for module in model.modules():
        for weight, place in () if isinstance(module, torch.nn.Embedding) else _weights(module):
            if weight.device.type == "meta":
                for link in _LINKS[place] if device.type == "cuda" else (place,):
                    found[link] = found.get(link, 0) + shapes.stored_bytes(weight)
    return found


def overflow(options: Mapping[str, Any], found: Mapping[str, Mapping[str, int]]) -> str | None:
    """What fits neither on the devices nor where the placement keeps the rest; None if all does. accelerate leaves it
    on disk without a word. found: places of the loaded model."""
    if "disk" not in found or options.get("placement") == "disk-offload":
        return None
    where = "the GPUs and host memory" if offloads(options) else "the GPUs"
    return f"{found['disk']['bytes']} bytes of weights do not fit into the memory of {where}"


def not_placed(
    options: Mapping[str, Any], devices: Sequence[torch.device], found: Mapping[str, Mapping[str, int]]
) -> str | None:
    """Why weights are not where the options say; None if they are, or if the options say nothing. found: places of the
    loaded model."""
    placement = options.get("placement")
    if placement in (None, "tensor"):
        return None
    names = [str(device) for device in devices]
    if placement == "one" and set(found) != {names[0]}:
        return f"its weights are on {' and '.join(found)}"
    wanted = [_ELSEWHERE[placement]] if offloads(options) else names
    if missing := [place for place in wanted if place not in found]:
        return f"all its weights fit on {' and '.join(found)}, and none are on {' and '.join(missing)}"
    return None


def _weights(module: torch.nn.Module) -> Iterator[tuple[torch.Tensor, str]]:
    """(weight, where it is between two steps) of a module's own weights, those of packed layers among them."""
    own = dict(module.named_parameters(recurse=False))
    if shapes.is_packed(module):
        own |= dict(module.named_buffers(recurse=False))
    for name, weight in own.items():
        yield weight, _kept_in(module, name) if weight.device.type == "meta" else str(weight.device)


def _kept_in(module: torch.nn.Module, name: str) -> str:
    """``cpu`` or ``disk``: where the hook of a module has the weight that is not on the device."""
    weights = module._hf_hook.weights_map  # of accelerate.utils.PrefixedDataset, around an OffloadedWeightsLoader
    return "cpu" if f"{weights.prefix}{name}" in weights.dataset.state_dict else "disk"
