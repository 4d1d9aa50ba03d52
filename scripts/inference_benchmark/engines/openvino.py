"""OpenVINO GenAI: what Intel's CPUs are used with. It runs on weights exported from the same checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy
import openvino
import openvino_genai
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from inference_benchmark.analysis.timeline import Profile
from inference_benchmark.engines import hf_facts, refusal, shapes
from inference_benchmark.engines.openvino_convert import COMPRESSED
from inference_benchmark.engines.refusal import UnsupportedError
from inference_benchmark.engines.torch_device import TorchDeviceEngine
from inference_benchmark.models import checkpoint as checkpoints
from inference_benchmark.models.cache import RefusedError, cache_root, made_once

#: Increase it whenever the export of a checkpoint gives different files.
CONVERSION_VERSION = 1
#: What decides the files that an export gives.
_EXPORTERS = ("openvino", "optimum", "optimum-intel", "nncf", "torch", "transformers")
#: More than any batch has; OpenVINO takes it as it is.
_NO_LIMIT = 2**62
#: OpenVINO's names of dtypes, for its settings and for the constants of a model.
_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}
_WEIGHTS = {"int8": "u8", "int4": "u4"}


class OpenVinoEngine(TorchDeviceEngine):
    """ContinuousBatchingPipeline, which LLMPipeline is made of: it says when a step has ended."""

    def start(self, device: str, threads: int, checkpoint: Path) -> None:
        self.initialise_device(device, threads)
        self.threads, self.checkpoint = threads, checkpoint
        self.config = AutoConfig.from_pretrained(checkpoint)
        self.family = self.config.model_type
        self.core = openvino.Core()
        self.followed = shapes.follow_checkpoint(checkpoint)

    def unsupported(self, precision: str) -> str | None:
        if self.device.type != "cpu":
            return "openvino runs on CPUs here"
        if precision == "bf16" and not self._has_bf16:
            return f"openvino {openvino.__version__} has no bf16 on this CPU"
        # Each precision has files of its own. They are made here, before anything is timed or limited.
        try:
            self.exported = exported(self.checkpoint, precision)
        except RefusedError as error:
            return str(error)
        return None

    def load(self, checkpoint: Path, precision: str) -> None:
        self.hold_limit_while_loading(self.exported)
        self.precision = precision
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False  # it would answer the same prompts from memory
        scheduler.max_num_batched_tokens = scheduler.max_num_seqs = _NO_LIMIT  # a batch is one batch in every step
        scheduler.dynamic_split_fuse = False
        try:
            self.pipeline = openvino_genai.ContinuousBatchingPipeline(
                self.exported, scheduler_config=scheduler, device="CPU", properties=self._properties
            )
        except RuntimeError as error:  # of whatever kind
            if self.is_out_of_memory(error):
                raise
            raise UnsupportedError(refusal.words_of(error)) from error
        # The first call starts OpenVINO's threads. Under the final limit, a failed start could end the process.
        self.generate(numpy.zeros((1, 1), dtype=numpy.int64), 1)
        self.hold_limit()
        self.note_loaded()

    def not_loaded_as(self, precision: str) -> str | None:
        wanted = _WEIGHTS.get(precision, "f32")  # bf16 is made of fp32 when the model is compiled
        found = {dtype for dtypes in self._constants.values() for dtype, _ in dtypes}
        return None if wanted in found else f"openvino has its weights in {', '.join(sorted(found))}, not in {wanted}"

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    def describe(self) -> dict[str, Any]:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(self.config)
        shape_facts = shapes.facts(model, self.followed, self._stored(), self._activations)
        return {
            "class": "openvino_genai.ContinuousBatchingPipeline",
            **self.package_versions(self.precision),
            "parameters": shapes.parameters(model),
            "properties": self._properties,
            "quantised": {"library": "nncf"} if self.precision in COMPRESSED else None,
            "device_map": {"": self.device.type},
            **hf_facts.torch_settings(self.device),
            "threads": self.threads,
            **shape_facts,
        }

    def generate(self, prompts: numpy.ndarray, new_tokens: int) -> numpy.ndarray:
        return self._generate(prompts, new_tokens, lambda: None)

    def observe(self, prompts: numpy.ndarray, new_tokens: int) -> tuple[numpy.ndarray, dict[str, Any]]:
        return self.generate(prompts, new_tokens), {"activations": [shapes.dtype_name(self._activations)]}

    def generate_in_steps(self, prompts: numpy.ndarray, new_tokens: int, step_ended: Callable[[], None]):
        return self._generate(prompts, new_tokens, step_ended)

    def profile(self, prompts: numpy.ndarray, new_tokens: int, trace: Path | None) -> Profile | None:
        return None  # torch's profiler sees nothing of it

    def next_token_logits(self, prompts: numpy.ndarray, continuation: numpy.ndarray) -> numpy.ndarray:
        # The pipeline gives no logits: the same files, compiled with the same settings, and no cache of pages.
        compiled = self.core.compile_model(self._model(), "CPU", self._properties)
        ids = numpy.concatenate([prompts, continuation[:, :-1]], axis=1)
        inputs = {
            "input_ids": ids,
            "attention_mask": numpy.ones_like(ids),
            "position_ids": numpy.broadcast_to(numpy.arange(ids.shape[1]), ids.shape),
            "beam_idx": numpy.arange(len(ids), dtype=numpy.int32),
        }
        names = {port.any_name for port in compiled.inputs}
        logits = compiled.create_infer_request().infer({name: inputs[name] for name in names})["logits"]
        return numpy.array(logits, dtype=numpy.float32)[:, prompts.shape[1] - 1 :]

    def _generate(self, prompts: numpy.ndarray, new_tokens: int, step_ended: Callable[[], None]) -> numpy.ndarray:
        # Without an end token a pipeline takes that of the model. This one no model generates.
        settings = openvino_genai.GenerationConfig(
            max_new_tokens=new_tokens, eos_token_id=self.vocab_size, ignore_eos=True, do_sample=False
        )
        pipeline = self.pipeline
        try:
            rows = [
                pipeline.add_request(number, openvino.Tensor(prompts[number : number + 1]), settings)
                for number in range(len(prompts))
            ]
            while pipeline.has_non_finished_requests():
                pipeline.step()
                step_ended()
        except BaseException:
            self.pipeline = None  # it would go on with what is left of these requests
            raise
        tokens = numpy.full((len(prompts), new_tokens), -1, dtype=numpy.int64)
        for row, handle in zip(tokens, rows, strict=True):
            ids = handle.read_all()[0].generated_ids
            row[: len(ids)] = ids
        return tokens

    def unload(self) -> None:
        self.pipeline = None
        self.release()

    @property
    def _has_bf16(self) -> bool:
        return "BF16" in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")

    @property
    def _activations(self) -> torch.dtype:
        """With compressed weights what OpenVINO itself chooses: bf16 where the CPU has instructions for it."""
        is_bf16 = self.precision == "bf16" or (self.precision in COMPRESSED and self._has_bf16)
        return torch.bfloat16 if is_bf16 else torch.float32

    @property
    def _properties(self) -> dict[str, Any]:
        """Everything that OpenVINO would choose by the machine and that changes speed or answers."""
        hint = _HINTS[self._activations]
        return {
            "INFERENCE_PRECISION_HINT": hint,
            "KV_CACHE_PRECISION": hint,  # by default 8 bits, whatever the weights have
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
        }

    def _model(self) -> openvino.Model:
        return self.core.read_model(self.exported / "openvino_model.xml")

    @cached_property
    def _constants(self) -> Mapping[tuple[int, int], list[tuple[str, int]]]:
        """(dtype, bytes with scales and zero points) of the matrices in the exported files, by (outputs, inputs)."""
        constants = {
            each.get_friendly_name(): each for each in self._model().get_ops() if each.get_type_name() == "Constant"
        }
        found: dict[tuple[int, int], list[tuple[str, int]]] = defaultdict(list)
        for name, each in constants.items():
            # In groups of inputs a matrix has three dimensions.
            outputs, *rest = each.get_output_shape(0) or (0,)
            is_matrix = len(rest) in (1, 2) and not name.endswith(("/scale", "/zero_point"))
            if is_matrix and min(outputs, inputs := int(numpy.prod(rest))) > 1:
                parts = filter(None, (constants.get(name + part) for part in ("", "/scale", "/zero_point")))
                n_bytes = sum(part.get_byte_size() for part in parts)
                found[outputs, inputs].append((each.get_element_type().get_type_name(), n_bytes))
        return found

    def _stored(self) -> shapes.Stored:
        """Weights that are not compressed have the dtype of activations. A product with compressed weights is at best
        one of 8 bits: OpenVINO quantises activations for it, where the CPU has instructions for that."""
        if self.precision not in COMPRESSED:
            return lambda module: (module.weight.numel() * self._activations.itemsize, None)
        constants = self._constants

        def stored(module: torch.nn.Module) -> tuple[int, str]:
            inputs, outputs = shapes.sizes(module)
            if (outputs, inputs) not in constants:
                raise shapes.UnknownShapesError(f"no matrix of {outputs} x {inputs} is in the exported files")
            return min(n_bytes for _, n_bytes in constants[outputs, inputs]), "int8"

        return stored


def exported(checkpoint: Path, precision: str) -> Path:
    """The checkpoint in OpenVINO's format, exported once. The folder's name is a digest of all that it depends on."""
    weights = precision if precision in COMPRESSED else "fp32"
    versions = [metadata.version(name) for name in _EXPORTERS]
    inputs = [CONVERSION_VERSION, versions, checkpoints.fingerprint(checkpoint), weights]
    key = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]
    return made_once(
        cache_root() / "openvino" / key,
        "inference_benchmark.engines.openvino_convert",
        {"checkpoint": str(checkpoint), "weights": weights},
        "openvino could not export the weights",
    )
