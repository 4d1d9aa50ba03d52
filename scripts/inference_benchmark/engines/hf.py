"""transformers' generate with its defaults: eager, with a dynamic cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import accelerate  # noqa: F401  otherwise transformers imports it during the timed load
import numpy
import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteriaList,
)
from transformers.utils import logging

from inference_benchmark.engines import hf_facts, placement, shapes
from inference_benchmark.engines.hf_precisions import BITSANDBYTES, PRECISIONS
from inference_benchmark.engines.options import CACHE_BITS, not_on_cpu, offloads
from inference_benchmark.engines.refusal import UnsupportedError
from inference_benchmark.engines.torch_device import TorchDeviceEngine
from inference_benchmark.models import loading
from inference_benchmark.models.checkpoint import weights_files

logging.disable_progress_bar()

#: transformers' names of the option attention.
_ATTENTION = {"eager": "eager", "sdpa": "sdpa", "flex": "flex_attention", "flash": "flash_attention_2"}
#: transformers' defaults, except the axes, which its documentation recommends for hqq: a group is in one row, so that
#: rows of a batch do not change each other. The other library, quanto, has no 8 bits and needs nvcc on CUDA.
_HQQ = {"backend": "hqq", "axis_key": 1, "axis_value": 1, "q_group_size": 64, "residual_length": 128}
#: For each value of the option cache: hf_facts.kind_of_cache, and the arguments of generate.
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
#: The minimal share of the weights of the blocks that is stored as the precision says. The router of a mixture of
#: experts and the convolution of a state space are never quantised.
LEAST_SHARE = 0.9
#: How often a file of weights is mapped at a time for a module on disk: for weight and bias, and while it is opened.
_MAPPINGS = 3


class HfEngine(TorchDeviceEngine):
    """AutoModelForCausalLM.from_pretrained(device_map=...).generate(...)."""

    #: Additional arguments of every generate call.
    generate_options: Mapping[str, Any] = MappingProxyType({})
    #: hf_facts.kind_of_cache of every call; "" if transformers may choose it.
    promised_cache = ""
    #: How a quantised checkpoint stores the weights of the blocks.
    stored_in_checkpoint = ""
    #: placement.places of the loaded model, if a variant chooses its placement.
    places: Mapping[str, Mapping[str, int]] = MappingProxyType({})

    @property
    def cache_bits(self) -> int | None:
        """The bits of a quantised cache."""
        return CACHE_BITS.get(self.options.get("cache"))

    def import_libraries(self, checkpoint: Path, on_gpu: bool) -> None:
        super().import_libraries(checkpoint, on_gpu)
        with suppress(ImportError):  # a worker that needs the package reports it
            # With a GPU, bitsandbytes initialises CUDA, which a fork cannot use then.
            for module in () if on_gpu else BITSANDBYTES:
                import_module(module)

    def start(self, device: str, threads: int, checkpoint: Path) -> None:
        self.initialise_device(device, threads)
        config = self.config = loading.config_of(checkpoint)
        self.family = config.model_type
        if quantisation := getattr(config, "quantization_config", None):
            self.stored_in_checkpoint = f"int{quantisation.get('bits', 4)}"  # awq need not say that it has 4
        if MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None) is None:
            raise UnsupportedError(f"transformers has no causal language model of type {config.model_type}")
        self.token_work = shapes.work_of_checkpoint(checkpoint)

    def unsupported(self, precision: str) -> str | None:
        for module in PRECISIONS[precision].modules:
            import_module(module)  # a missing package is an error, not an unsupported precision
        if self.device.type == "cpu" and (option := not_on_cpu(self.options)):
            return f"{option} needs a GPU, and the device is cpu"
        if precision == "int4-weight-only" and self.device.type == "cpu":
            return "torchao has no products with 4-bit weights for a CPU"
        if reason := self._unpackable():
            return reason
        if self.device.type != "cuda":
            return None
        name, capability = torch.cuda.get_device_name(self.device), torch.cuda.get_device_capability(self.device)
        device = f"{name} (compute capability {capability[0]}.{capability[1]})"
        is_bf16 = PRECISIONS[precision].dtype is torch.bfloat16
        if is_bf16 and not torch.cuda.is_bf16_supported(including_emulation=False):
            return f"{device} has no bfloat16 arithmetic"
        if precision == "int4-weight-only" and capability < (8, 0):
            return f"{device} has no products with 4-bit weights; 8.0 or newer"
        if precision in ("int8", "int8-threshold-0") and capability < (7, 5):
            return f"{device} has no int8 tensor cores; 7.5 or newer"
        return None

    def _unpackable(self) -> str | None:
        """Why hqq cannot pack keys and values; None if it can, or if the cache is not quantised.

        hqq packs groups of several tokens together, unless those of a token fill whole bytes. Then the numbers of rows
        and tokens would decide whether a cell can be measured.
        """
        if not self.cache_bits:
            return None
        block = _HQQ["q_group_size"] * 8 // self.cache_bits
        odd = next((width for width in self.token_work.kv_widths if width % block), None)
        return odd and f"hqq packs {self.cache_bits}-bit keys or values by {block}, and a token has {odd} in a layer"

    def load(self, checkpoint: Path, precision: str) -> None:
        self.begin_loading(checkpoint)
        self.precision = precision
        self.default_matmul_precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(self.options.get("matmul_precision", "highest"))
        attention, (dtype, _, quantisation_config, _) = self.options.get("attention"), PRECISIONS[precision]
        self.model = loading.whole_model(
            AutoModelForCausalLM,
            checkpoint,
            config=self.config,
            dtype=dtype,
            **placement.arguments(self.options, self.devices, self._memory_bytes()),
            # None is what transformers chooses for the family, whatever the configuration names.
            attn_implementation=_ATTENTION.get(attention),
            # None as an argument would replace quantised weights of the checkpoint by random ones.
            **({"quantization_config": quantisation_config()} if quantisation_config else {}),
        ).eval()
        # The checkpoint's own generation settings (penalties, sampling, lengths) would change what is timed.
        self.model.generation_config = GenerationConfig()
        if "placement" in self.options:
            placement.tie(self.model)
            self.places = placement.places(self.model)
            if problem := placement.overflow(self.options, self.places):
                raise MemoryError(problem)
            if self.device.type == "cpu" and "disk" in self.places:
                self.mapped_bytes = _MAPPINGS * max(path.stat().st_size for path in weights_files(checkpoint))
        if "cache" in self.options:
            self.promised_cache, self.generate_options = _CACHES[self.options["cache"]]
        self.finish_loading()

    def not_loaded_as(self, precision: str) -> str | None:
        attention = _ATTENTION.get(self.options.get("attention"))
        if attention and (found := self.model.config._attn_implementation).removeprefix("paged|") != attention:
            return f"the loaded model has {found} attention"
        if reason := placement.not_placed(self.options, self.devices, self.places):
            return reason
        stored = hf_facts.block_weights(self.model)
        wanted = PRECISIONS[precision].stored_as or self.stored_in_checkpoint
        n_weights, n_wanted = sum(stored.values()), stored.get(wanted, 0)
        if stored and n_wanted >= LEAST_SHARE * n_weights:
            return None
        kinds = ", ".join(f"{n:,} {name}" for name, n in stored.items())
        return f"{n_wanted:,} of {n_weights:,} weights of the blocks are {wanted}; found: {kinds}"

    @property
    def vocab_size(self) -> int:
        return self.model.get_input_embeddings().num_embeddings

    def describe(self) -> dict[str, Any]:
        facts = hf_facts.model_facts(self.model, self.device, self.token_work) | self.package_versions(self.precision)
        if self.options:
            facts["options"] = self.options
        if self.places:
            facts["placement"] = self.places
        if offloads(self.options) and facts["shapes"]:
            facts["shapes"]["link_bytes"] = placement.link_bytes(self.model, self.device)
        if self.cache_bits and facts["shapes"]:
            facts["shapes"] |= shapes.quantised_cache(
                self.token_work, self.model.dtype, self.cache_bits, _HQQ["q_group_size"], _HQQ["residual_length"]
            )
        matmul_precision = self.options.get("matmul_precision", "highest")
        if self.model.dtype is torch.float32 and matmul_precision != "highest":
            reason = f"float32 products in {matmul_precision} precision have no ceiling"
            facts |= {"shapes": None, "shapes_unknown": reason}
        return facts

    def _memory_bytes(self) -> int:
        """The memory of each device, or its limit."""
        if self.limit_bytes is not None:
            return self.limit_bytes
        return self.least_total_bytes() if self.device.type == "cuda" else placement.host_memory_bytes()

    def generate(self, prompts: numpy.ndarray, new_tokens: int) -> numpy.ndarray:
        return self._generate(prompts, new_tokens)[:, prompts.shape[1] :].cpu().numpy()

    def observe(self, prompts: numpy.ndarray, new_tokens: int) -> tuple[numpy.ndarray, dict[str, Any]]:
        stored = hf_facts.block_weights(self.model)
        with hf_facts.Observation(self.model) as observation:
            tokens, facts = self._generate_observed(prompts, new_tokens, observation)
        if (now := hf_facts.block_weights(self.model)) != stored:  # some libraries make them dense in the first call
            raise UnsupportedError(f"the first call makes {now} of the weights of the blocks, which were {stored}")
        if self.promised_cache not in ("", facts["cache"]):
            length = f"{prompts.shape[1]} prompt and {new_tokens} new tokens"
            raise UnsupportedError(f"the cache of {self.family} is a {facts['cache']} after {length}")
        return tokens, facts | observation.facts()

    def _generate_observed(self, prompts: numpy.ndarray, new_tokens: int, observation: hf_facts.Observation):
        output = self._generate(
            prompts, new_tokens, logits_processor=LogitsProcessorList([observation]), return_dict_in_generate=True
        )
        tokens = output.sequences[:, prompts.shape[1] :].cpu().numpy()
        return tokens, {"cache": hf_facts.kind_of_cache(output.past_key_values)}

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
        return forcing.logits

    def text_logits(self, prompts: numpy.ndarray, continuation: numpy.ndarray) -> Iterator[numpy.ndarray]:
        if self.cache_bits:  # prefill reads keys and values before they are quantised
            yield from self.next_token_logits(prompts, continuation)
            return
        passes, steps = [], continuation.shape[1]
        keep = {"logits_to_keep": steps} if self.model._supports_logits_to_keep() else {}
        with self.model.register_forward_hook(lambda *of_pass: passes.append(of_pass[-1].logits)):
            # One by one: LLM.int8() treats a column by the values of all rows in a pass.
            for ids in numpy.concatenate([prompts, continuation[:, :-1]], axis=1):
                self._generate(ids[None], 1, **keep)
                yield passes.pop()[0, -steps:].to("cpu", torch.float32).numpy()

    def _generate(self, prompts: numpy.ndarray, new_tokens: int, **options: Any):
        ids = torch.from_numpy(prompts).to(self.device)
        # In a GenerationConfig transformers would replace eos_token_id=None by the model's. The padding id is outside
        # the vocabulary, so that a row that stopped early is detected.
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
