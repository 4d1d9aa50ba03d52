"""llama.cpp, by the low-level interface of llama-cpp-python."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import llama_cpp
import numpy
import torch

from inference_benchmark.engines import llama_cpp_log as log
from inference_benchmark.engines import shapes
from inference_benchmark.engines.converted import ConvertedEngine
from inference_benchmark.engines.llama_cpp_files import PRECISIONS, name_of, written
from inference_benchmark.engines.refusal import UnsupportedError
from inference_benchmark.machine.out_of_memory import line_about_memory
from inference_benchmark.models.cache import RefusedError

#: What activations are converted to for products with weights of these types; for all others they are 8-bit.
_ARITHMETIC = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
#: llama.cpp rounds the context of a row up to this number of tokens.
_ROUNDED_TO = 256
#: The types of the fields of a batch.
_FIELDS = dict(llama_cpp.llama_batch._fields_)
#: llama.h: LLAMA_LOAD_MODE_NONE, which reads files instead of mapping them.
_READ = 0


class _Tensor(NamedTuple):
    """A tensor in a file. kind: the name of its type. row_bytes: of the weights of an output, or of a token."""

    kind: str
    n_weights: int
    n_bytes: int
    row_bytes: int

    @classmethod
    def of(cls, tensor: gguf.ReaderTensor) -> _Tensor:
        n_weights, n_bytes, n_rows = map(int, (tensor.n_elements, tensor.n_bytes, tensor.shape[1:].prod()))
        return cls(tensor.tensor_type.name, n_weights, n_bytes, n_bytes // n_rows)


class _Room(NamedTuple):
    """What fits into a context: rows of so many tokens, and so many tokens with logits in a call."""

    rows: int
    tokens: int
    outputs: int


class LlamaCppEngine(ConvertedEngine):
    """llama_decode of one llama_batch, in which each row is a sequence, and the largest logit of each."""

    model: int | None = None
    context: int | None = None
    room = _Room(0, 0, 0)

    def start(self, device: str, threads: int, checkpoint: Path) -> None:
        super().start(device, threads, checkpoint)
        self.checkpoint = checkpoint
        if device == "cuda" and not llama_cpp.llama_supports_gpu_offload():
            remedy = f"set CMAKE_ARGS=-DGGML_CUDA=on and remove {sys.prefix}"
            raise RuntimeError(f"llama-cpp-python was built without CUDA; {remedy}")
        os.environ["GGML_NO_BACKTRACE"] = "1"  # it would start a debugger where memory runs out
        llama_cpp.llama_backend_init()
        self.most_rows = llama_cpp.llama_max_parallel_sequences()
        self.numbers = numpy.arange(self.most_rows, dtype=numpy.int32)
        self.addresses = self.numbers.ctypes.data + self.numbers.itemsize * self.numbers.astype(numpy.uintp)

    def unsupported(self, precision: str) -> str | None:
        # Each precision has a file of its own. It is made here, before anything is timed or limited.
        try:
            self.file = written(self.checkpoint, precision)
        except RefusedError as error:
            return str(error)
        return None

    def load(self, checkpoint: Path, precision: str) -> None:
        self.begin_loading(self.file.parent)
        self.precision = precision
        parameters = llama_cpp.llama_model_default_params()
        parameters.load_mode = _READ  # a mapped file would be resident beside weights that are laid out anew
        if self.device.type == "cpu":
            parameters.n_gpu_layers = 0  # by default all
        log.clear()
        self.model = llama_cpp.llama_model_load_from_file(bytes(self.file), parameters)
        if not self.model:
            raise self._failure()
        self.finish_loading()

    def not_loaded_as(self, precision: str) -> str | None:
        wanted, found = PRECISIONS[precision][1], Counter(self._block_weights)
        if found.most_common(1)[0][0] == wanted:
            return None
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in found.most_common())
        return f"most weights of the blocks are not {wanted}; found: {kinds}"

    def describe(self) -> dict[str, Any]:
        facts = super().describe()
        if facts["shapes"]:
            tables = ("token_embd.weight", "position_embd.weight")
            facts["shapes"] |= {
                "kv_bytes": self.token_work.kv_numbers * self._cache.itemsize,
                "attention_arithmetic": shapes.dtype_name(self._cache),
                "lookup_bytes": sum(self._tensors[name].row_bytes for name in tables if name in self._tensors),
            }
        return {
            **facts,
            "class": "llama_cpp.llama_decode",
            "system_info": llama_cpp.llama_print_system_info().decode().strip(" |"),
            "block_weights": self._block_weights,
            "quantised": {"library": "llama.cpp"} if PRECISIONS[self.precision][1] not in _ARITHMETIC else None,
        }

    def observe(self, prompts: numpy.ndarray, new_tokens: int) -> tuple[numpy.ndarray, dict[str, Any]]:
        non_finite = numpy.zeros(len(prompts), dtype=bool)

        def look(logits: numpy.ndarray) -> None:
            numpy.logical_or(non_finite, ~numpy.isfinite(logits).all(axis=1), out=non_finite)

        tokens = self._generate(prompts, new_tokens, look)
        facts = {
            "cache": f"{shapes.dtype_name(self._cache)} for {llama_cpp.llama_n_ctx(self.context)} tokens",
            "is_cache_shared": self._is_shared(self.room.tokens),
            "flash_attention": self.has_flash_attention,
            "activations": [shapes.dtype_name(self.activations)],
            "non_finite_rows": int(non_finite.sum()),
        }
        return tokens, facts

    def generate_in_steps(self, prompts: numpy.ndarray, new_tokens: int, step_ended: Callable[[], None]):
        return self._generate(prompts, new_tokens, lambda _: step_ended())

    def _generate(self, prompts: numpy.ndarray, new_tokens: int, look: Callable[[numpy.ndarray], None]):
        """look: called with the logits of each step."""
        rows, length = prompts.shape
        self._make_room(_Room(rows, length + new_tokens - 1, rows))
        tokens = numpy.empty((rows, new_tokens), dtype=numpy.int64)
        for step in range(new_tokens):
            fed = tokens[:, step - 1 : step] if step else prompts
            logits = self._decode(fed, length + step - fed.shape[1])
            logits.argmax(axis=1, out=tokens[:, step])
            look(logits)
        return tokens

    def next_token_logits(self, prompts: numpy.ndarray, continuation: numpy.ndarray) -> numpy.ndarray:
        ids = numpy.concatenate([prompts, continuation[:, :-1]], axis=1)
        self._make_room(_Room(*ids.shape, continuation.size))
        return self._decode(ids, 0, continuation.shape[1]).reshape(*continuation.shape, -1).copy()

    def _make_room(self, room: _Room) -> None:
        """An empty context for this, as small as may be; that of the last call if it suffices."""
        self.refuse_beyond_window(room.tokens)
        if room.rows > self.most_rows:
            raise UnsupportedError(f"llama.cpp decodes at most {self.most_rows} rows at once")
        is_kept = self.context and room.rows == self.room.rows and all(map(int.__le__, room, self.room))
        if not is_kept:
            self._free_context()
            parameters = llama_cpp.llama_context_default_params()
            is_shared = self._is_shared(room.tokens)
            parameters.kv_unified = is_shared
            parameters.n_ctx = room.rows * (room.tokens if is_shared else _rounded(room.tokens))
            parameters.n_seq_max = room.rows
            parameters.n_batch = room.rows * room.tokens  # a call; it is computed by 512 tokens, more than its rows
            parameters.n_outputs_max = room.outputs
            parameters.n_threads = parameters.n_threads_batch = self.threads
            if self._cache is torch.float32:
                parameters.type_k = parameters.type_v = llama_cpp.GGML_TYPE_F32
                # It would convert keys and values to fp16. By default it is on where llama.cpp has it.
                parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
            log.clear()
            self.context = llama_cpp.llama_init_from_model(self.model, parameters)
            if not self.context:
                raise self._failure()
            self.room = room
            self.has_flash_attention = log.has_said("Flash Attention enabled")
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), False)

    def _decode(self, ids: numpy.ndarray, position: int, n_wanted: int = 1) -> numpy.ndarray:
        """Feed every row its next tokens, int (rows, tokens), of which the first has this position. The logits of the
        last n_wanted tokens of each, float32 (rows x n_wanted, vocab_size), until the next call."""
        rows, n_tokens = ids.shape
        wanted = numpy.zeros(ids.shape, dtype=numpy.int8)
        wanted[:, -n_wanted:] = 1
        arrays = {
            "token": ids.astype(numpy.int32, order="C"),
            "pos": numpy.tile(numpy.arange(position, position + n_tokens, dtype=numpy.int32), rows),
            "n_seq_id": numpy.ones(ids.size, dtype=numpy.int32),
            "seq_id": numpy.repeat(self.addresses[:rows], n_tokens),
            "logits": wanted,
        }
        # The batch does not keep the arrays.
        batch = llama_cpp.llama_batch(
            ids.size, **{name: array.ctypes.data_as(_FIELDS[name]) for name, array in arrays.items()}
        )
        log.clear()
        if status := llama_cpp.llama_decode(self.context, batch):
            raise RuntimeError(f"llama_decode ended with status {status}: {self._failure()}")
        found = llama_cpp.llama_get_logits(self.context)
        return numpy.ctypeslib.as_array(found, shape=(rows * n_wanted, self.vocab_size))

    def _failure(self) -> Exception:
        """What llama.cpp gave as its reason for the last failure."""
        errors = log.errors()
        if line := line_about_memory(errors, self.growth_limit is not None):
            return RuntimeError(line)
        return UnsupportedError(" ".join(errors.split()))

    def release(self) -> None:
        self._free_context()
        super().release()

    def _free_context(self) -> None:
        if self.context:
            llama_cpp.llama_free(self.context)
        self.context = None

    def unload(self) -> None:
        self._free_context()
        llama_cpp.llama_model_free(self.model)
        super().unload()

    @staticmethod
    def _is_shared(tokens: int) -> bool:
        """Whether rows share one cache. In their own, each is rounded up; in a shared one, attention goes over all rows
        and masks the others. So it is shared where rounding up would more than double it."""
        return _rounded(tokens) > 2 * tokens

    @property
    def activations(self) -> torch.dtype:
        return torch.float32

    @property
    def _cache(self) -> torch.dtype:
        """The dtype of keys and values: llama.cpp's default, except in fp32."""
        return torch.float32 if self.precision == "fp32" else torch.float16

    @cached_property
    def _tensors(self) -> Mapping[str, _Tensor]:
        """By name, those of the file."""
        return {each.name: _Tensor.of(each) for each in gguf.GGUFReader(self.file).tensors}

    @property
    def _block_weights(self) -> dict[str, int]:
        """How the weights of the blocks are stored: {type: number of weights}."""
        found: Counter[str] = Counter()
        for name, each in self._tensors.items():
            if name.startswith("blk.") and each.row_bytes != each.n_bytes:
                found[each.kind] += each.n_weights
        return dict(found)

    def stored(self, module: torch.nn.Module) -> tuple[int, str]:
        name = name_of(self.config, f"{self.names[module]}.weight")
        each = self._tensors.get(name) or self._tensors["token_embd.weight"]  # which may be the output layer, too
        return each.n_bytes, _ARITHMETIC.get(each.kind, "int8")


def _rounded(tokens: int) -> int:
    return -(-tokens // _ROUNDED_TO) * _ROUNDED_TO
