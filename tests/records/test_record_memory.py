"""Which memory of a record is its peak."""

from __future__ import annotations

import pytest
from made_up import make_cell, make_record, make_run

from inference_benchmark.records.results import cell_result

DEVICE = {"device_total_bytes": 80, "peak_reserved_bytes": 40}


@pytest.mark.parametrize(
    ("memory", "peak_bytes", "share"),
    [
        ({**DEVICE, "peak_allocated_bytes": 5}, 5, 5 / 80),
        (DEVICE, 40, 40 / 80),  # ctranslate2 on CUDA
        ({"peak_rss_bytes": 16}, 16, 16 / 64),
    ],
    ids=["torch", "device only", "host"],
)
def test_the_peak_is_what_was_taken_not_what_an_allocator_keeps(memory, peak_bytes, share):
    run = make_run(samples_s=[1.0] * 3, memory=memory)
    record = make_record(make_cell(), runs=(run,), host={"memory_bytes": 64})
    result = cell_result(record)
    assert (result.value("peak_memory_bytes"), result.value("memory_share")) == (peak_bytes, share)
    assert result.value("peak_reserved_bytes") == memory.get("peak_reserved_bytes")
