"""transformers' generate with its defaults: eager, with a dynamic cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import accelerate  # noqa: F401  otherwise transformers imports it during the timed load
import numpy
import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteriaList,
    TorchAoConfig,
)
from transformers.utils import logging

from inference_benchmark.engines import hf_facts, shapes
from inference_benchmark.engines.options import CACHE_BITS
from inference_benchmark.engines.refusal import UnsupportedError
from inference_benchmark.engines.shapes import dtype_name
from inference_benchmark.engines.torch_device import TorchDeviceEngine
from inference_benchmark.machine.hardware import GpuError, detect_device
from inference_benchmark.models.architecture import QUANTISED

logging.disable_progress_bar()

#: dtypes of activations and of weights that are not quantised.
_DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    # Dettmers et al. 2022, arXiv:2208.07339. The authors' kernels compute in float16. With bfloat16 activations,
    # bitsandbytes casts and logs a warning at every matrix product.
    "int8": torch.float16,
    "int8-threshold-0": torch.float16,
    # Dettmers et al. 2023, arXiv:2305.14314.
    "nf4": torch.bfloat16,
    "int8-weight-only": torch.bfloat16,
    "int4-weight-only": torch.bfloat16,
    # The dtype of gptqmodel's products on a CPU. On CUDA transformers makes it float16 for awq.
    **dict.fromkeys(QUANTISED, torch.bfloat16),
}
#: Settings of bitsandbytes for the precisions that it quantises.
_BITSANDBYTES: dict[str, dict[str, Any]] = {
    "int8": {"load_in_8bit": True, "llm_int8_threshold": 6.0},
    "int8-threshold-0": {"load_in_8bit": True, "llm_int8_threshold": 0.0},
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16},
}
#: The same of torchao: a class of torchao.quantization, and its arguments.
_TORCHAO: dict[str, tuple[str, dict[str, Any]]] = {
    "int8-weight-only": ("Int8WeightOnlyConfig", {}),
    # The layout of the kernels that torch itself has.
    "int4-weight-only": ("Int4WeightOnlyConfig", {"group_size": 128, "int4_packing_format": "tile_packed_to_4d"}),
}
#: How each precision stores the weights of the blocks, unless the checkpoint decides.
_STORED_AS = {
    **{precision: dtype_name(_DTYPES[precision]) for precision in ("fp32", "bf16", "fp16")},
    "int8": "int8",
    "int8-threshold-0": "int8",
    "nf4": "nf4",
    "int8-weight-only": "int8",
    "int4-weight-only": "int4",
}
#: transformers' names of the option attention.
_ATTENTION = {"eager": "eager", "sdpa": "sdpa", "flex": "flex_attention", "flash": "flash_attention_2"}
#: transformers' defaults, but for the axes, which are those that its documentation recommends for hqq: a group lies in
#: one row, so that no row of a batch changes another. Its other library, quanto, has no 8 bits, and needs nvcc on CUDA.
_HQQ = {"backend": "hqq", "axis_key": 1, "axis_value": 1, "q_group_size": 64, "residual_length": 128}
#: The kind of each option cache (hf_facts.kind_of_cache), and how generate is asked for it.
_CACHES: dict[str, tuple[str, dict[str, Any]]] = {
    "dynamic": ("DynamicCache", {"cache_implementation": "dynamic"}),
    "static": ("StaticCache", {"cache_implementation": "static", "disable_compile": True}),
    **{
        name: (
            f"QuantizedCache of {bits}-bit HQQQuantizedLayer",
            {"cache_implementation": "quantized", "cache_config": {**_HQQ, "nbits": bits}},
        )
        for name, bits in CACHE_BITS.items()
    },
}
#: The least part of these weights that has to be stored so. A few stay as they are in any precision: the router of a
#: mixture of experts, the convolution of a state space.
_LEAST_SHARE = 0.9


def quantisation_config(precision: str) -> BitsAndBytesConfig | TorchAoConfig | None:
    """How the weights are quantised for a precision; None where they are not. Raises ImportError."""
    if precision in _BITSANDBYTES:
        return BitsAndBytesConfig(**_BITSANDBYTES[precision])
    if precision in _TORCHAO:
        from torchao import quantization

        name, arguments = _TORCHAO[precision]
        return TorchAoConfig(getattr(quantization, name)(**arguments))
    return None


def _import_bitsandbytes() -> None:
    """With the part of transformers for it: importing is not to count as load time. Raises ImportError."""
    import bitsandbytes  # noqa: F401
    import transformers.integrations.bitsandbytes  # noqa: F401


class HfEngine(TorchDeviceEngine):
    """AutoModelForCausalLM.from_pretrained(device_map=...).generate(...)."""

    #: Additional arguments of every generate call.
    generate_options: Mapping[str, Any] = MappingProxyType({})
    #: How a checkpoint stores the weights of the blocks if they are quantised already; "" if they are not.
    stored_in_checkpoint = ""

    @property
    def cache_bits(self) -> int | None:
        """The bits of a quantised cache."""
        return CACHE_BITS.get(self.options.get("cache"))

    def import_libraries(self, checkpoint: Path) -> None:
        super().import_libraries(checkpoint)
        with suppress(ImportError, GpuError):  # a worker that needs the package, or the GPU, says so
            # Where there is a GPU, bitsandbytes asks CUDA about it, and a fork could then not use it.
            if detect_device() == "cpu":
                _import_bitsandbytes()

    def start(self, device: str, threads: int, checkpoint: Path) -> None:
        self.initialise_device(device, threads)
        config = AutoConfig.from_pretrained(checkpoint)
        self.family = config.model_type
        if quantisation := getattr(config, "quantization_config", None):
            self.stored_in_checkpoint = f"int{quantisation.get('bits', 4)}"  # awq need not say that it has 4
        if MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None) is None:
            raise UnsupportedError(f"transformers has no causal language model of type {config.model_type}")
        self.followed = shapes.follow_checkpoint(checkpoint)

    def unsupported(self, precision: str) -> str | None:
        if precision in _BITSANDBYTES:
            _import_bitsandbytes()  # a missing package is an error, not an unsupported precision
        if precision in _TORCHAO:
            import torchao.quantization  # noqa: F401  the same
        if precision in QUANTISED:
            import gptqmodel  # noqa: F401  the same
        if precision == "int4-weight-only" and self.device.type == "cpu":
            return "torchao has no products with 4-bit weights for a CPU"
        if reason := self._unpackable():
            return reason
        if self.device.type != "cuda":
            return None
        name, capability = torch.cuda.get_device_name(self.device), torch.cuda.get_device_capability(self.device)
        device = f"{name} (compute capability {capability[0]}.{capability[1]})"
        if _DTYPES[precision] is torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False):
            return f"{device} has no bfloat16 arithmetic"
        if precision == "int4-weight-only" and capability < (8, 0):
            return f"{device} has no products with 4-bit weights; 8.0 or newer"
        if "load_in_8bit" in _BITSANDBYTES.get(precision, {}) and capability < (7, 5):
            return f"{device} has no int8 tensor cores; 7.5 or newer"
        return None

    def _unpackable(self) -> str | None:
        """Why hqq cannot pack keys and values; None if it can, or if the cache is not quantised.

        Groups that fill a byte are packed together. Those of each token have to be, or else the numbers of rows and of
        tokens would decide whether a cell can be measured.
        """
        if not self.cache_bits:
            return None
        block = _HQQ["q_group_size"] * 8 // self.cache_bits
        odd = next((width for width in self.followed.kv_widths if width % block), None)
        return odd and f"hqq packs {self.cache_bits}-bit keys or values by {block}, and a token has {odd} in a layer"

    def load(self, checkpoint: Path, precision: str) -> None:
        self.hold_limit_while_loading(checkpoint)
        self.precision = precision
        self.default_matmul_precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(self.options.get("matmul_precision", self.default_matmul_precision))
        attention, quantisation = self.options.get("attention"), quantisation_config(precision)
        self.model = AutoModelForCausalLM.from_pretrained(
            checkpoint,
            dtype=_DTYPES[precision],
            device_map={"": self.device},
            # None would be a choice, too: of random weights in place of those that are quantised already.
            **({"quantization_config": quantisation} if quantisation else {}),
            **({"attn_implementation": _ATTENTION[attention]} if attention else {}),
        ).eval()
        # The checkpoint's own generation settings (penalties, sampling, lengths) would change what is timed.
        self.model.generation_config = GenerationConfig()
        if "cache" in self.options:
            self.generate_options = _CACHES[self.options["cache"]][1]
        self.synchronize()
        self.hold_limit()
        self.note_loaded()

    def not_loaded_as(self, precision: str) -> str | None:
        attention = _ATTENTION.get(self.options.get("attention"))
        if attention and (found := self.model.config._attn_implementation) != attention:
            return f"the loaded model has {found} attention"
        stored, wanted = hf_facts.block_weights(self.model), _STORED_AS.get(precision, self.stored_in_checkpoint)
        n_weights, n_wanted = sum(stored.values()), stored.get(wanted, 0)
        if stored and n_wanted >= _LEAST_SHARE * n_weights:
            return None
        kinds = ", ".join(f"{n:,} {name}" for name, n in stored.items())
        return f"{n_wanted:,} of {n_weights:,} weights of the blocks are {wanted}; found: {kinds}"

    @property
    def vocab_size(self) -> int:
        return self.model.get_input_embeddings().num_embeddings

    def describe(self) -> dict[str, Any]:
        facts = hf_facts.model_facts(self.model, self.device, self.followed) | self.package_versions(self.precision)
        if self.options:
            facts["options"] = self.options
        if self.cache_bits and facts["shapes"]:
            facts["shapes"] |= shapes.quantised_cache(
                self.followed, self.model.dtype, self.cache_bits, _HQQ["q_group_size"], _HQQ["residual_length"]
            )
        matmul_precision = self.options.get("matmul_precision", "highest")
        if self.model.dtype is torch.float32 and matmul_precision != "highest":
            reason = f"float32 products in {matmul_precision} precision have no ceiling"
            facts |= {"shapes": None, "shapes_unknown": reason}
        return facts

    def generate(self, prompts: numpy.ndarray, new_tokens: int) -> numpy.ndarray:
        return self._generate(prompts, new_tokens)[:, prompts.shape[1] :].cpu().numpy()

    def observe(self, prompts: numpy.ndarray, new_tokens: int) -> tuple[numpy.ndarray, dict[str, Any]]:
        stored = hf_facts.block_weights(self.model)
        with hf_facts.Observation(self.model) as observation:
            output = self._generate(
                prompts, new_tokens, logits_processor=LogitsProcessorList([observation]), return_dict_in_generate=True
            )
        facts = {"cache": hf_facts.kind_of_cache(output.past_key_values), **observation.facts()}
        if (now := hf_facts.block_weights(self.model)) != stored:  # some libraries make them dense in the first call
            raise UnsupportedError(f"the first call makes {now} of the weights of the blocks, which were {stored}")
        chosen = self.options.get("cache")
        if chosen and facts["cache"] != _CACHES[chosen][0]:
            raise UnsupportedError(f"the cache of {self.family} is a {facts['cache']}")
        return output.sequences[:, prompts.shape[1] :].cpu().numpy(), facts

    def generate_in_steps(self, prompts: numpy.ndarray, new_tokens: int, step_ended: Callable[[], None]):
        criteria = StoppingCriteriaList([hf_facts.StepEnds(step_ended, len(prompts), self.device)])
        output = self._generate(prompts, new_tokens, stopping_criteria=criteria)
        return output[:, prompts.shape[1] :].cpu().numpy()

    def mark(self) -> Any:
        if self.device.type != "cuda":
            return super().mark()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds_between(self, marks: Sequence[Any]) -> list[float]:
        if self.device.type != "cuda":
            return super().seconds_between(marks)
        return [sooner.elapsed_time(later) / 1000 for sooner, later in pairwise(marks)]

    def next_token_logits(self, prompts: numpy.ndarray, continuation: numpy.ndarray) -> numpy.ndarray:
        forcing = hf_facts.TeacherForcing(torch.from_numpy(continuation).to(self.device))
        self._generate(prompts, continuation.shape[1], logits_processor=LogitsProcessorList([forcing]))
        return numpy.stack(forcing.logits, axis=1)

    def _generate(self, prompts: numpy.ndarray, new_tokens: int, **options: Any):
        ids = torch.from_numpy(prompts).to(self.device)
        # Keyword arguments, because transformers fills eos_token_id=None in a GenerationConfig from the model's.
        # The padding id is outside the vocabulary, so that a row that stopped early is detected.
        return self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=None,
            pad_token_id=self.vocab_size,
            **self.generate_options,
            **options,
        )

    def unload(self) -> None:
        del self.model
        torch.set_float32_matmul_precision(self.default_matmul_precision)
        self.release()

    def compilation(self) -> dict[str, Any]:
        return hf_facts.compilation()
