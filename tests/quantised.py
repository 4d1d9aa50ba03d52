"""Checkpoints quantised by GPTQ and AWQ: tensors in the format of these methods, rounded without calibration."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from made_up import MODELS
from safetensors.torch import load_file, save_file

from inference_benchmark.models.synthesize import synthesize

BITS, GROUP_SIZE = 4, 32
_SETTINGS = {
    "gptq": {"quant_method": "gptq", "bits": BITS, "group_size": GROUP_SIZE, "desc_act": False, "sym": False},
    "awq": {"quant_method": "awq", "bits": BITS, "group_size": GROUP_SIZE, "zero_point": True, "version": "gemm"},
}
#: Where AWQ puts each of eight neighbours in a number of 32 bits.
_AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def save(folder: Path, method: str, family: str = "llama", desc_act: bool = False) -> Path:
    """A folder with a model of a family in MODELS, its linear layers quantised; the same weights, not quantised, in
    ``dense`` below it. desc_act: of GPTQ, the inputs of groups in another order."""
    model = synthesize(MODELS[family], 0).to(torch.float16)
    head, packed = model.get_output_embeddings(), {}
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and layer is not head:
            n_inputs = layer.in_features
            order = torch.arange(n_inputs) * (5 if desc_act else 1) % n_inputs
            tensors, layer.weight.data = _quantise(layer.weight.detach().float().T, order // GROUP_SIZE, method)
            packed |= {f"{name}.{key}": tensor for key, tensor in tensors.items()}
    model.save_pretrained(folder / "dense")
    dense = load_file(folder / "dense/model.safetensors")
    layers = {name.rpartition(".")[0] for name in packed}
    rest = {name: tensor for name, tensor in dense.items() if name.removesuffix(".weight") not in layers}
    save_file({**packed, **rest}, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "dense/config.json").read_text())
    settings = _SETTINGS[method] | ({"desc_act": True} if desc_act else {})
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))
    return folder


def data_bytes(file: Path, *endings: str) -> int:
    """The bytes of the tensors in a file whose names end with one of these."""
    tensors = load_file(file)
    return sum(t.numel() * t.element_size() for name, t in tensors.items() if name.endswith(endings))


def _quantise(weight: torch.Tensor, group_of_input: torch.Tensor, method: str) -> tuple[dict[str, Any], torch.Tensor]:
    """(tensors of the checkpoint, the weights that they stand for as torch has them) of weights (inputs, outputs)."""
    groups = [weight[group_of_input == group] for group in range(math.ceil(len(weight) / GROUP_SIZE))]
    least, most = (torch.stack([extreme(group, 0).values for group in groups]) for extreme in (torch.min, torch.max))
    scales = ((most - least) / (2**BITS - 1)).half()
    zeros = (-least / scales).round().clamp(1, 2**BITS - 1).long()
    numbers = weight / scales[group_of_input] + zeros[group_of_input]
    numbers = numbers.round().clamp(0, 2**BITS - 1).long()
    if method == "gptq":  # zero points are stored less one
        tensors = {"qweight": _pack(numbers.T).T, "qzeros": _pack(zeros - 1), "g_idx": group_of_input.int()}
    else:
        tensors = {"qweight": _pack(_in_awq_order(numbers)), "qzeros": _pack(_in_awq_order(zeros))}
    dense = (numbers - zeros[group_of_input]) * scales[group_of_input]
    return {name: t.contiguous() for name, t in {**tensors, "scales": scales}.items()}, dense.T.half().contiguous()


def _in_awq_order(numbers: torch.Tensor) -> torch.Tensor:
    return numbers.unflatten(1, (-1, 8))[..., _AWQ_ORDER].flatten(1)


def _pack(numbers: torch.Tensor) -> torch.Tensor:
    """Eight neighbours in a row as one number of 32 bits, the first in its lowest bits."""
    packed = (numbers.unflatten(1, (-1, 8)) << torch.arange(0, 32, BITS)).sum(-1)
    return torch.where(packed >= 2**31, packed - 2**32, packed).int()
