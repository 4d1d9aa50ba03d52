"""transformers' continuous batching: the loop behind generate_batch, with keys and values in a paged cache."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from operator import le
from pathlib import Path
from typing import Any

import numpy
import transformers
from transformers import LogitsProcessor

from inference_benchmark.engines import hf_facts
from inference_benchmark.engines.converted import tokens_of
from inference_benchmark.engines.hf import HfEngine
from inference_benchmark.engines.refusal import UnsupportedError

#: Tokens of a page on CUDA, transformers' default: flash attention reads pages of a multiple of it.
_CUDA_PAGE = 256
#: The first transformers with the interface that is used here.
_FIRST_VERSION = (5, 17)
#: The least that transformers allows.
_LEAST_PAGE = 4


class HfContinuousEngine(HfEngine):
    """A ContinuousBatchingManager with room for the batch, which all calls of its shape share.

    Each call hands all rows to the manager, starts its thread and waits for the thread's end. generate_batch starts the
    thread first, so that its first steps may have a part of the rows; and once all tokens are there, it waits until the
    thread looks, every 0.1 s, whether it should end, and collects garbage.
    """

    is_profiled_on_cpu = False  # it computes in a thread
    manager: transformers.ContinuousBatchingManager | None = None
    #: Rows, prompt tokens and positions of a row that the manager has room for.
    room = (0, 0, 0)

    def unsupported(self, precision: str) -> str | None:
        version = transformers.__version__
        if tuple(map(int, version.split(".")[:2])) < _FIRST_VERSION:
            needs = ".".join(map(str, _FIRST_VERSION))
            return f"hf-continuous needs transformers {needs} or newer, and here is {version}"
        return super().unsupported(precision)

    def load(self, checkpoint: Path, precision: str) -> None:
        super().load(checkpoint, precision)
        self._new_manager(1, 1, 1)  # gives the model the attention that goes with a paged cache, which it keeps

    def generate(self, prompts: numpy.ndarray, new_tokens: int) -> numpy.ndarray:
        return self._generate(prompts, new_tokens)

    def _generate_observed(self, prompts: numpy.ndarray, new_tokens: int, observation: hf_facts.Observation):
        tokens = self._generate(prompts, new_tokens, [observation])
        self._make_room(*prompts.shape, new_tokens)
        cache, config = self.manager.batch_processor.cache, self.manager.continuous_batching_config
        return tokens, {
            "cache": type(cache).__name__,
            "cache_reserved_bytes": cache.cache_tensor.nbytes,
            "cache_page_tokens": config.page_size,
            "cuda_graphs": any(config.cuda_graph_booleans),
            "asynchronous": config.use_async_batching,
        }

    def generate_in_steps(self, prompts: numpy.ndarray, new_tokens: int, step_ended: Callable[[], None]):
        return self._generate(prompts, new_tokens, step_ended=step_ended)

    def text_logits(self, prompts: numpy.ndarray, continuation: numpy.ndarray) -> Iterator[numpy.ndarray]:
        yield from self.next_token_logits(prompts, continuation)  # its prefill has the logits of the last token alone

    def compilation(self) -> dict[str, Any]:
        facts = super().compilation()
        if self.manager is None or not any(self.manager.continuous_batching_config.cuda_graph_booleans):
            return facts
        buffers = self.manager.batch_processor.inputs_and_outputs
        buffers = [pair.device_io for pair in buffers.io_pairs] if hasattr(buffers, "io_pairs") else [buffers]
        recorded = sum(len(each.graphs._storage) for each in buffers)
        return facts | {"cuda_graphs_recorded": recorded, "cuda_graphs_skipped": 0}

    def release(self) -> None:
        self.manager, self.room = None, (0, 0, 0)
        super().release()

    def _generate(
        self,
        prompts: numpy.ndarray,
        new_tokens: int,
        logits_processor: Sequence[LogitsProcessor] = (),
        step_ended: Callable[[], None] = lambda: None,
    ) -> numpy.ndarray:
        self._make_room(*prompts.shape, new_tokens, logits_processor)
        manager, status = self.manager, self.manager.background_thread_status
        layers = _calls_of(manager.batch_processor, repeat(step_ended, new_tokens))
        status.clear()  # after a call it would take no rows before it starts
        names = manager.add_requests(prompts.tolist(), max_new_tokens=new_tokens)
        manager.start()
        status.request_stop(status.FLUSH_AND_STOP, 0)  # as soon as no row is left
        manager.join(time.perf_counter())
        if error := status.fatal_error:
            self.release()
            raise error
        steps, is_early = manager.current_batch, manager.continuous_batching_config.use_async_batching
        if steps not in (new_tokens, new_tokens + is_early):  # it may have begun a step before it knew the last token
            raise UnsupportedError(f"{steps} steps for {new_tokens} tokens: not all rows were in all of them")
        outputs = {output.request_id: output.generated_tokens for output in iter(manager.get_result, None)}
        if logits_processor:
            self.room = (0, 0, 0)  # the next call makes a manager without
            n_layers = self.model.config.get_text_config().num_hidden_layers
            if len(layers) < n_layers:  # others compute without the tokens before, and nothing says so
                raise UnsupportedError(f"{len(layers)} of {n_layers} layers of {self.family} use the paged cache")
        return tokens_of([outputs[name] for name in names], new_tokens)

    def _make_room(
        self, rows: int, prompt_tokens: int, new_tokens: int, logits_processor: Sequence[LogitsProcessor] = ()
    ) -> None:
        """Keep the manager if it has room for the call and need not show the logits; otherwise make another."""
        wanted = rows, prompt_tokens, prompt_tokens + new_tokens
        if not logits_processor and rows == self.room[0] and all(map(le, wanted, self.room)):
            return
        self.release()
        manager = self._new_manager(*wanted, logits_processor)
        manager.warmup()  # allocates, and on CUDA records graphs where transformers has them
        self.manager, self.room = manager, wanted

    def _new_manager(
        self, rows: int, prompt_tokens: int, positions: int, logits_processor: Sequence[LogitsProcessor] = ()
    ) -> transformers.ContinuousBatchingManager:
        page = _CUDA_PAGE if self.device.type == "cuda" else max(_LEAST_PAGE, positions)
        # Each kind of attention takes whole sectors, which hold pages for any number of layers of each kind.
        kinds = Counter(getattr(self.model.config.get_text_config(), "layer_types", None) or [""]).values()
        more = math.ceil(len(kinds) * math.lcm(*kinds) / sum(kinds)) if len(kinds) > 1 else 0
        config = transformers.ContinuousBatchingConfig(
            page_size=page,
            num_blocks=rows * math.ceil(positions / page) + more,
            max_batch_tokens=rows * prompt_tokens,  # prefill of all rows is one step
            max_requests_per_batch=rows,
            max_memory_percent=1.0,
            safety_margin=0.0,
            allow_block_sharing=False,  # it would answer the same prompts without prefill
            auto_switch_to_flash="attention" not in self.options,
            # A graph would not call the processor again, and a step begun early would call it once more.
            **({"use_cuda_graph": False, "use_async_batching": False} if logits_processor else {}),
        )
        settings = transformers.GenerationConfig(do_sample=False, eos_token_id=-1)
        manager = self.model.init_continuous_batching(settings, config)
        manager.logit_processor.logits_processor = logits_processor
        manager.logit_processor.do_processing = bool(logits_processor)
        return manager


def _calls_of(processor: Any, step_ends: Iterator[Callable[[], None]]) -> set[int]:
    """Call the next of step_ends at the end of each step, as long as there are any. The numbers of the layers that put
    keys and values into the cache, which the calls fill."""
    layers, update, update_cache = set(), type(processor).update_batch, type(processor.cache).update

    def update_batch() -> None:
        update(processor)
        next(step_ends, lambda: None)()

    def noted(key_states, value_states, layer_idx, kwargs):
        layers.add(layer_idx)
        return update_cache(processor.cache, key_states, value_states, layer_idx, kwargs)

    processor.update_batch, processor.cache.update = update_batch, noted
    return layers
