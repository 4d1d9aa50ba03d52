"""OpenVINO GenAI, for Intel's CPUs. Run as a module, it converts a checkpoint."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy
import openvino
import openvino_genai
import torch

from inference_benchmark.engines import converted as conversion
from inference_benchmark.engines import refusal, shapes
from inference_benchmark.engines.converted import ConvertedEngine, tokens_of
from inference_benchmark.engines.refusal import UnsupportedError
from inference_benchmark.models import loading
from inference_benchmark.models.cache import RefusedError

#: The precisions in which NNCF compresses weights, without data: bits of a weight.
COMPRESSED = {"int8": 8, "int4": 4}
#: The packages that decide the converted files.
_EXPORTERS = ("openvino", "optimum", "optimum-intel", "nncf", "torch", "transformers")
#: More rows or tokens than any batch has. OpenVINO accepts this number.
_NO_LIMIT = 2**62
#: OpenVINO's names of dtypes, for its settings and for the constants of a model.
_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}
_WEIGHTS = {"int8": "u8", "int4": "u4"}


class OpenVinoEngine(ConvertedEngine):
    """ContinuousBatchingPipeline, on which LLMPipeline is based: it shows when a step has ended."""

    def start(self, device: str, threads: int, checkpoint: Path) -> None:
        super().start(device, threads, checkpoint)
        self.checkpoint, self.core = checkpoint, openvino.Core()

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
        self.begin_loading(self.exported)
        self.precision = precision
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False  # it would answer the same prompts from memory
        scheduler.max_num_batched_tokens = scheduler.max_num_seqs = _NO_LIMIT  # a batch is one batch in every step
        scheduler.dynamic_split_fuse = False
        try:
            self.pipeline = openvino_genai.ContinuousBatchingPipeline(
                self.exported, scheduler_config=scheduler, device="CPU", properties=self._properties
            )
        except RuntimeError as error:  # for any reason
            if self.is_out_of_memory(error):
                raise
            raise UnsupportedError(refusal.words_of(error)) from error
        self.finish_loading()

    def not_loaded_as(self, precision: str) -> str | None:
        wanted = _WEIGHTS.get(precision, "f32")  # bf16 is made from fp32 when the model is compiled
        found = {dtype for dtypes in self._constants.values() for dtype, _ in dtypes}
        return None if wanted in found else f"openvino has its weights in {', '.join(sorted(found))}, not in {wanted}"

    def describe(self) -> dict[str, Any]:
        return {
            **super().describe(),
            "class": "openvino_genai.ContinuousBatchingPipeline",
            "properties": self._properties,
            "quantised": {"library": "nncf"} if self.precision in COMPRESSED else None,
        }

    def observe(self, prompts: numpy.ndarray, new_tokens: int) -> tuple[numpy.ndarray, dict[str, Any]]:
        return self.generate(prompts, new_tokens), {"activations": [shapes.dtype_name(self.activations)]}

    def generate_in_steps(self, prompts: numpy.ndarray, new_tokens: int, step_ended: Callable[[], None]):
        # Without an end token the pipeline takes the one in the model's files. No model generates this one.
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
            self.pipeline = None  # it would continue with the unfinished requests
            raise
        return tokens_of([handle.read_all()[0].generated_ids for handle in rows], new_tokens)

    def next_token_logits(self, prompts: numpy.ndarray, continuation: numpy.ndarray) -> numpy.ndarray:
        ids = numpy.concatenate([prompts, continuation[:, :-1]], axis=1)
        inputs = {
            "input_ids": ids,
            "attention_mask": numpy.ones_like(ids),
            "position_ids": numpy.broadcast_to(numpy.arange(ids.shape[1]), ids.shape),
            "beam_idx": numpy.arange(len(ids), dtype=numpy.int32),
        }
        names = {port.any_name for port in self._compiled.inputs}
        logits = self._compiled.create_infer_request().infer({name: inputs[name] for name in names})["logits"]
        return numpy.array(logits, dtype=numpy.float32)[:, prompts.shape[1] - 1 :]

    def unload(self) -> None:
        self.pipeline = None
        vars(self).pop("_compiled", None)
        self.release()

    @cached_property
    def _compiled(self) -> openvino.CompiledModel:
        """The pipeline gives no logits: the same files, compiled with the same settings, but without its cache."""
        return self.core.compile_model(self._model(), "CPU", self._properties)

    @property
    def _has_bf16(self) -> bool:
        return "BF16" in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")

    @property
    def activations(self) -> torch.dtype:
        """With compressed weights, what OpenVINO itself chooses: bf16 if the CPU has instructions for it."""
        is_bf16 = self.precision == "bf16" or (self.precision in COMPRESSED and self._has_bf16)
        return torch.bfloat16 if is_bf16 else torch.float32

    @property
    def _properties(self) -> dict[str, Any]:
        """All settings that change speed or answers and whose defaults depend on the machine."""
        hint = _HINTS[self.activations]
        return {
            "INFERENCE_PRECISION_HINT": hint,
            "KV_CACHE_PRECISION": hint,  # by default 8 bits, for all weights
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

    def stored(self, module: torch.nn.Module) -> tuple[int, str | None]:
        """Weights that are not compressed have the dtype of activations. Products with compressed weights count as
        8-bit: OpenVINO quantises activations for them if the CPU has instructions for that."""
        if self.precision not in COMPRESSED:
            return module.weight.numel() * self.activations.itemsize, None
        inputs, outputs = shapes.sizes(module)
        if (outputs, inputs) not in self._constants:
            raise shapes.UnknownShapesError(f"no matrix of {outputs} x {inputs} is in the exported files")
        return min(n_bytes for _, n_bytes in self._constants[outputs, inputs]), "int8"


def exported(checkpoint: Path, precision: str) -> Path:
    """The checkpoint in OpenVINO's format, with the weights of a precision."""
    weights = precision if precision in COMPRESSED else "fp32"
    return conversion.converted("openvino", checkpoint, [*map(metadata.version, _EXPORTERS)], weights=weights)


def convert(checkpoint: str, output: str, weights: str) -> None:
    """With the settings of ``optimum-cli export openvino --weight-format``. weights: fp32, or a key of COMPRESSED."""
    from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig

    bits = COMPRESSED.get(weights)
    adjust = {"group_size_fallback": "adjust"} if bits == 4 else {}  # if 128 does not divide the inputs
    loading.refuse_parts(checkpoint)
    with TemporaryDirectory() as folder:  # the exporter reads the configuration by itself
        loading.config_of(checkpoint).to_json_file(Path(folder, "config.json"))
        for path in Path(checkpoint).iterdir():
            if path.name != "config.json":
                Path(folder, path.name).symlink_to(path.resolve())
        OVModelForCausalLM.from_pretrained(
            folder,
            export=True,
            compile=False,
            torch_dtype=torch.float32,
            load_in_8bit=False,  # None would be 8 bits from a billion parameters on
            quantization_config=OVWeightQuantizationConfig(bits=bits, **adjust) if bits else None,
        ).save_pretrained(output)


if __name__ == "__main__":
    conversion.main("openvino", convert)
