"""vLLM's V1 engine in this process, its steps driven as ``vllm.LLM.generate`` drives them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy
import torch
from pydantic import ValidationError
from vllm import LLM, SamplingParams
from vllm.compilation.counter import compilation_counter
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.engine.arg_utils import EngineArgs
from vllm.inputs import TokensPrompt
from vllm.model_executor.model_loader.utils import get_model_cls
from vllm.utils.import_utils import resolve_obj_by_qualname

from inference_benchmark.engines import cpu_memory, hf_facts, shapes
from inference_benchmark.engines.converted import ConvertedEngine, tokens_of
from inference_benchmark.engines.refusal import UnsupportedError
from inference_benchmark.models import loading

_VARIABLES = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine is in this process, whose memory and end are watched
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # the last token has no position: it is chosen, and never read
}
#: Tokens of a block of keys and values: vLLM's defaults.
_BLOCK_TOKENS = {"cuda": 16, "cpu": 128}


class _Precision(NamedTuple):
    """dtype: of activations; "auto" if the checkpoint decides. stored_as: a dtype that holds weights. quantization:
    vLLM's name of how it quantises weights while it loads them."""

    dtype: str
    stored_as: torch.dtype
    quantization: str | None = None


PRECISIONS = {
    "fp32": _Precision("float32", torch.float32),
    "bf16": _Precision("bfloat16", torch.bfloat16),
    "fp16": _Precision("float16", torch.float16),
    "fp8": _Precision("bfloat16", torch.float8_e4m3fn, "fp8"),
    "gptq": _Precision("auto", torch.int32),
    "awq": _Precision("auto", torch.int32),
}


class VllmEngine(ConvertedEngine):
    """LLM(...), made for the largest call to come.

    By default vLLM takes 92 % of the memory for keys and values, whatever the batch, and runs as many rows as fit into
    a step. Here its cache has the blocks of that call and no more, so that memory is what the batch needs, a batch that
    does not fit fails at the start, and all rows are in every step.
    """

    llm: LLM | None = None
    is_profiled_on_cpu = True  # its kernels are torch's and operators that torch knows
    precision = ""
    compile_s = 0.0
    #: Rows, prompt tokens and new tokens of the largest call.
    largest = (1, 1, 1)

    def start(self, device: str, threads: int, checkpoint: Path) -> None:
        os.environ |= _VARIABLES
        super().start(device, threads, checkpoint)
        loading.refuse_parts(checkpoint)
        self.checkpoint = checkpoint

    def expect(self, rows: int, prompt_tokens: int, new_tokens: int) -> None:
        if self.largest != (rows, prompt_tokens, new_tokens):
            self.largest = (rows, prompt_tokens, new_tokens)
            if self.precision:
                self._begin()

    def unsupported(self, precision: str) -> None:
        """vLLM raises an exception for what it does not support. Imports what loading would import."""
        try:
            config = EngineArgs(**self._arguments(precision)).create_engine_config()
        except ValidationError as error:  # it may go on with all architectures that there are
            raise UnsupportedError(error.errors()[0]["msg"].partition(". ")[0]) from error
        get_model_cls(config.model_config)
        resolve_obj_by_qualname(config.parallel_config.worker_cls)

    def load(self, checkpoint: Path, precision: str) -> None:
        self.begin_loading(checkpoint)
        self.precision = precision
        self._begin()
        self.finish_loading()

    def _arguments(self, precision: str) -> dict[str, Any]:
        rows, prompt_tokens, new_tokens = self.largest
        settings = PRECISIONS[precision]
        block_tokens = _BLOCK_TOKENS[self.device.type]
        return {
            "model": str(self.checkpoint),
            "skip_tokenizer_init": True,
            "generation_config": "vllm",  # not the model's
            "dtype": settings.dtype,
            "quantization": settings.quantization,
            "enforce_eager": self.options.get("execution") == "eager",
            "enable_prefix_caching": False,  # it would answer the same prompts from memory
            "max_num_seqs": rows,
            "max_num_batched_tokens": rows * prompt_tokens,
            "max_model_len": prompt_tokens + new_tokens,
            "block_size": block_tokens,
            "disable_hybrid_kv_cache_manager": True,  # blocks are counted as if all layers kept all tokens
            # vLLM keeps one block empty.
            "num_gpu_blocks_override": rows * ceil((prompt_tokens + new_tokens) / block_tokens) + 1,
            "kv_cache_memory_bytes": 1,  # the number of blocks decides; without it vLLM tries how many fit
            "gpu_memory_utilization": 0.01,  # what must be free at the start
        }

    def _begin(self) -> None:
        self._end()
        with self._partly_beyond_limit() if self.device.type == "cpu" else nullcontext():
            self.llm = LLM(**self._arguments(self.precision))
        if self.device.type == "cuda":
            self.compile_s += self.llm.llm_engine.vllm_config.compilation_config.compilation_time
        # One output for each row with a new token.
        self.rows_of_steps: list[int] = []
        client = self.llm.llm_engine.engine_core
        get_output = client.get_output

        def counted() -> Any:
            outputs = get_output()
            self.rows_of_steps.append(len(outputs.outputs))
            return outputs

        client.get_output = counted

    def _end(self) -> None:
        if self.llm:
            self.llm.llm_engine.engine_core.shutdown()
            self.llm = None
            cleanup_dist_env_and_memory()

    @contextmanager
    def _partly_beyond_limit(self) -> Iterator[None]:
        """On a CPU the limit on memory is for the model only: what the start of vLLM's threads and the compiler keep is
        added to it."""
        from vllm.v1.worker.cpu_worker import CPUModelRunner, CPUWorker

        def beyond_limit(method: Callable[[Any], None], compiles: bool = False) -> Callable[[Any], None]:
            def run(of: Any) -> None:
                began, limit = self.clock(), self.growth_limit
                before_bytes = cpu_memory.data_bytes() if limit else 0
                self.lift_limit()
                method(of)
                self.compile_s += self.clock() - began if compiles else 0
                if limit:
                    self.release()
                    limit.limit_bytes += max(0, cpu_memory.data_bytes() - before_bytes)
                    self.begin_loading(self.checkpoint)

            return run

        start, compile_model = CPUWorker.init_device, CPUModelRunner.warming_up_model
        with (
            mock.patch.object(CPUWorker, "init_device", beyond_limit(start)),
            mock.patch.object(CPUModelRunner, "warming_up_model", beyond_limit(compile_model, compiles=True)),
        ):
            yield

    def not_loaded_as(self, precision: str) -> str | None:
        wanted = PRECISIONS[precision].stored_as
        found = {each.dtype for each in self._runner.model.parameters()}
        if wanted in found:
            return None
        return f"vllm has its weights in {', '.join(map(shapes.dtype_name, found))}, not in {shapes.dtype_name(wanted)}"

    def describe(self) -> dict[str, Any]:
        config, cache = self.llm.llm_engine.vllm_config, self._scheduler.kv_cache_config
        compilation = config.compilation_config
        return {
            **super().describe(),
            "class": f"vllm.{type(self._runner.get_model()).__name__}",
            "attention": self._runner.attn_groups[0][0].backend.get_name(),
            "execution": {
                "compiled": compilation.mode.name,
                "cuda_graphs": compilation.cudagraph_mode.name if self.device.type == "cuda" else None,
            },
            "properties": {name: value for name, value in self._arguments(self.precision).items() if name != "model"},
            "kv_cache_bytes": sum(tensor.size for tensor in cache.kv_cache_tensors),
            "quantised": {"library": "vllm"} if config.quant_config else None,
            **({"options": self.options} if self.options else {}),
        }

    def observe(self, prompts: numpy.ndarray, new_tokens: int) -> tuple[numpy.ndarray, dict[str, Any]]:
        observation = hf_facts.Observation(self._runner.get_model())
        with self._logits_through(lambda logits: observation(None, logits)):
            tokens = self.generate(prompts, new_tokens)
        return tokens, {**observation.facts(), "activations": [shapes.dtype_name(self.activations)]}

    def generate_in_steps(self, prompts: numpy.ndarray, new_tokens: int, step_ended: Callable[[], None]):
        engine, self.rows_of_steps[:] = self.llm.llm_engine, []
        # Without min_tokens, which would forbid the end token.
        settings = SamplingParams(temperature=0, max_tokens=new_tokens, ignore_eos=True, detokenize=False)
        rows = []
        try:
            texts = [TokensPrompt(prompt_token_ids=row) for row in prompts.tolist()]
            self.llm.enqueue(texts, settings, use_tqdm=False)
            while engine.has_unfinished_requests():
                rows += engine.step()
                if self.rows_of_steps[-1]:  # on CUDA it may only have begun the next step
                    step_ended()
        except BaseException:
            self._end()  # it would continue with the unfinished requests
            raise
        steps = [n_rows for n_rows in self.rows_of_steps if n_rows]
        if steps != [len(prompts)] * new_tokens:
            how = f"{len(steps)} steps of {min(steps)} to {max(steps)} rows"
            raise UnsupportedError(f"vllm did not run the batch as one: {new_tokens} tokens took {how}")
        rows.sort(key=lambda row: int(row.request_id))
        return tokens_of([row.outputs[0].token_ids for row in rows], new_tokens)

    def next_token_logits(self, prompts: numpy.ndarray, continuation: numpy.ndarray) -> numpy.ndarray:
        forcing = hf_facts.TeacherForcing(torch.from_numpy(continuation).to(self.device))
        with self._logits_through(lambda logits: forcing(None, logits)):
            tokens = self.generate(prompts, continuation.shape[1])
        if not (tokens == continuation).all():
            raise RuntimeError("vllm has the rows of a batch in another order than that of the requests")
        return forcing.logits

    def text_logits(self, prompts: numpy.ndarray, continuation: numpy.ndarray) -> Iterator[numpy.ndarray]:
        # Its prompt_logprobs are log probabilities, as an object of Python for each token of the vocabulary.
        yield from self.next_token_logits(prompts, continuation)

    @contextmanager
    def _logits_through(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
        """In the block each step chooses tokens from what function makes of its logits (rows, vocabulary)."""
        model = self._runner.model
        compute = model.compute_logits
        with mock.patch.object(model, "compute_logits", lambda *states: function(compute(*states))):
            yield

    def compilation(self) -> dict[str, Any]:
        facts = hf_facts.compilation() | {"seconds": self.compile_s}
        if self.device.type == "cuda" and self.options.get("execution") != "eager":
            facts |= {"cuda_graphs_recorded": compilation_counter.num_cudagraph_captured, "cuda_graphs_skipped": 0}
        return facts

    def unload(self) -> None:
        self._end()
        self.release()

    @property
    def _scheduler(self) -> Any:
        return self.llm.llm_engine.engine_core.engine_core.scheduler

    @property
    def _runner(self) -> Any:
        return self.llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.model_runner

    @property
    def activations(self) -> torch.dtype:
        return self.llm.model_config.dtype

    def stored(self, module: torch.nn.Module) -> tuple[int, str | None]:
        """vLLM fuses some of transformers' matrices, which changes no sum."""
        if PRECISIONS[self.precision].stored_as is not self.activations:
            raise shapes.UnknownShapesError(f"how vllm reads weights of {self.precision} is not known here")
        return module.weight.numel() * self.activations.itemsize, None
