"""The neighbours of the experiment of trust.py: real processes."""

from __future__ import annotations

import os
from pathlib import Path

from running import wait_for
from trust import neighbours

from inference_benchmark.machine import cgroups


def test_neighbours_take_all_cpus_again_and_again_and_end_with_the_experiment():
    with neighbours(seed=1, shortest_s=0.05, longest_s=0.1) as process:
        children, seen = Path(f"/proc/{process.pid}/task/{process.pid}/children"), set()
        of_three_stretches = 3 * len(os.sched_getaffinity(0))

        def begun() -> bool:
            seen.update(children.read_text().split())
            return len(seen) >= of_three_stretches

        wait_for(begun)
    wait_for(lambda: not any(cgroups.read(Path(f"/proc/{pid}/cmdline")) for pid in seen))
