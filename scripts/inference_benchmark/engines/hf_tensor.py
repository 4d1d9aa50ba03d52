"""transformers' tensor parallelism: each process has a part of most matrices, and what these give is added up.

torch.distributed connects the processes: by NCCL where each has a GPU, by gloo where they share the CPUs. generate runs
in all of them, as under torchrun, and chooses the same tokens in each.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy
import torch
from torch.distributed import TCPStore
from transformers.distributed import DistributedConfig, initialize_distributed_mesh

from inference_benchmark.engines import cpu_memory, hf_facts
from inference_benchmark.engines.hf import LEAST_SHARE, HfEngine
from inference_benchmark.engines.options import gpus_of

_HOST = "127.0.0.1"
#: The parent ends a worker whose time is up.
_NEVER = timedelta(days=1)


class HfTensorEngine(HfEngine):
    """from_pretrained(distributed_config=DistributedConfig(tp_size=...)).generate(...). group: of worker/peers.py."""

    def start(self, device: str, threads: int, checkpoint: Path) -> None:
        self.n_processes = gpus_of(self.options)
        self.store = TCPStore(_HOST, 0, self.n_processes, is_master=True, wait_for_workers=False, timeout=_NEVER)
        with self.group.doing("join", self.store.port, device, threads, checkpoint):
            self._join(device, threads, checkpoint)

    def join(self, port: int, device: str, threads: int, checkpoint: Path) -> None:
        """As start, in another process. port: of the first one's store."""
        self.n_processes = gpus_of(self.options)
        self.store = TCPStore(_HOST, port, self.n_processes, timeout=_NEVER)
        self._join(device, threads, checkpoint)

    def _join(self, device: str, threads: int, checkpoint: Path) -> None:
        self.all_threads, self.own_threads = threads, max(1, threads // self.n_processes)
        super().start(device, self.own_threads, checkpoint)
        os.environ["LOCAL_RANK"] = str(self.group.rank)  # transformers takes the GPU of this number
        torch.distributed.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            store=self.store,
            rank=self.group.rank,
            world_size=self.n_processes,
            device_id=self.device if device == "cuda" else None,
            timeout=_NEVER,
        )

    @property
    def gpu_numbers(self) -> list[int]:
        return [self.group.rank]

    def yardstick(self) -> dict[str, Any]:
        torch.set_num_threads(self.all_threads)  # as in other engines, whose times it is compared with
        try:
            return super().yardstick()
        finally:
            torch.set_num_threads(self.own_threads)

    def unsupported(self, precision: str) -> str | None:
        if self.device.type == "cpu" and torch.accelerator.is_available():
            return "transformers splits a model over the GPUs that it finds, and the device is cpu"
        return super().unsupported(precision)

    def limit_memory(self, n_bytes: int) -> None:
        with self.group.doing("limit_memory", n_bytes):
            super().limit_memory(n_bytes + self._connections_bytes())

    def _connections_bytes(self) -> int:
        """What connections that transformers makes when it loads count for in the limit of a CPU: stacks of threads."""
        if self.device.type == "cuda":
            return 0
        before = cpu_memory.data_bytes()
        initialize_distributed_mesh(DistributedConfig(tp_size=self.n_processes))
        return cpu_memory.data_bytes() - before

    def lift_limit(self) -> None:
        with self.group.doing("lift_limit"):
            super().lift_limit()

    def load(self, checkpoint: Path, precision: str) -> None:
        with self.group.doing("load", checkpoint, precision):
            super().load(checkpoint, precision)

    def not_loaded_as(self, precision: str) -> str | None:
        n_split, n_weights = hf_facts.split_weights(self.model)
        if n_split < LEAST_SHARE * n_weights:
            return f"{n_split:,} of {n_weights:,} weights of the blocks are split over {self.n_processes} processes"
        return super().not_loaded_as(precision)

    def part(self) -> dict[str, dict[str, int]]:
        """placement.places of this process."""
        return self.places

    def describe(self) -> dict[str, Any]:
        facts = super().describe()
        parts = [self.part(), *self.group.ask("part")]
        facts["placement"] = {f"{self.device.type}:{n}": here for n, part in enumerate(parts) for here in part.values()}
        facts |= {"threads": self.all_threads, "threads_per_process": self.own_threads}
        if self.device.type == "cuda" and facts["shapes"]:
            facts["shapes"]["devices"] = self.n_processes
        return facts

    def next_token_logits(self, prompts: numpy.ndarray, continuation: numpy.ndarray) -> numpy.ndarray:
        with self.group.doing("follow_text", prompts, continuation):
            return super().next_token_logits(prompts, continuation)

    def follow_text(self, prompts: numpy.ndarray, continuation: numpy.ndarray) -> None:
        """As next_token_logits, in another process."""
        super().next_token_logits(prompts, continuation)

    def _generate(self, prompts: numpy.ndarray, new_tokens: int, **options: Any):
        # The others need what decides shapes, and not what looks at tokens.
        with self.group.doing("follow", prompts, new_tokens, {k: v for k, v in options.items() if type(v) is int}):
            return super()._generate(prompts, new_tokens, **options)

    def follow(self, prompts: numpy.ndarray, new_tokens: int, options: dict[str, int]) -> None:
        """As _generate, in another process."""
        super()._generate(prompts, new_tokens, **options)

    def out_of_memory_at(self) -> dict[str, str]:
        return {"process": f"{self.group.rank + 1} of {self.n_processes}", "device": str(self.device)}

    def release(self) -> None:
        with self.group.doing("release"):
            super().release()

    def unload(self) -> None:
        with self.group.doing("leave"):
            self.leave()
        self.group.close()
        super().unload()

    def leave(self) -> None:
        """End the connections; NCCL ends them in all processes at once."""
        torch.distributed.destroy_process_group()
        del self.store

    def reset_peak_memory(self) -> None:
        with self.group.doing("reset_peak_memory"):
            super().reset_peak_memory()

    def memory(self) -> dict[str, Any]:
        """Sums over all processes."""
        parts = [super().memory(), *self.group.ask("memory")]
        total: dict[str, Any] = {name: sum(part[name] for part in parts) for name in parts[0]}
        if self.device.type == "cuda":
            total["devices"] = [{k: v for k, v in part.items() if k != "loaded_bytes"} for part in parts]
        return total
