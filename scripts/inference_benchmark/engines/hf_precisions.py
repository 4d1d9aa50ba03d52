"""How transformers loads a model in each precision."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import torch
from transformers import BitsAndBytesConfig, TorchAoConfig

from inference_benchmark.models.architecture import QUANTISED

#: Imported before loading, whose time would otherwise include it.
BITSANDBYTES = ("bitsandbytes", "transformers.integrations.bitsandbytes")
_TORCHAO = "torchao.quantization"


class Precision(NamedTuple):
    """How a model is loaded.

    dtype: of activations and of weights that are not quantised. stored_as: how the weights of the blocks are stored; ""
    if the checkpoint decides. quantisation_config: makes the settings of quantisation. modules: of its library.
    """

    dtype: torch.dtype
    stored_as: str = ""
    quantisation_config: Callable[[], BitsAndBytesConfig | TorchAoConfig] | None = None
    modules: tuple[str, ...] = ()


def _bitsandbytes(dtype: torch.dtype, stored_as: str, **settings: Any) -> Precision:
    return Precision(dtype, stored_as, lambda: BitsAndBytesConfig(**settings), BITSANDBYTES)


def _torchao(stored_as: str, config: str, **settings: Any) -> Precision:
    def make() -> TorchAoConfig:
        return TorchAoConfig(getattr(import_module(_TORCHAO), config)(**settings))

    return Precision(torch.bfloat16, stored_as, make, (_TORCHAO,))


PRECISIONS = {
    "fp32": Precision(torch.float32, "float32"),
    "bf16": Precision(torch.bfloat16, "bfloat16"),
    "fp16": Precision(torch.float16, "float16"),
    # Dettmers et al. 2022, arXiv:2208.07339. The authors' kernels compute in float16. With bfloat16 activations,
    # bitsandbytes casts and logs a warning at every matrix product.
    "int8": _bitsandbytes(torch.float16, "int8", load_in_8bit=True, llm_int8_threshold=6.0),
    "int8-threshold-0": _bitsandbytes(torch.float16, "int8", load_in_8bit=True, llm_int8_threshold=0.0),
    # Dettmers et al. 2023, arXiv:2305.14314.
    "nf4": _bitsandbytes(
        torch.bfloat16, "nf4", load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    ),
    "int8-weight-only": _torchao("int8", "Int8WeightOnlyConfig"),
    # The layout of torch's own kernels.
    "int4-weight-only": _torchao(
        "int4", "Int4WeightOnlyConfig", group_size=128, int4_packing_format="tile_packed_to_4d"
    ),
    # The dtype of gptqmodel's products on a CPU. On CUDA transformers makes it float16 for awq.
    **dict.fromkeys(QUANTISED, Precision(torch.bfloat16, modules=("gptqmodel",))),
}
