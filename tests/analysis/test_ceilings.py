"""What a machine does at its best, from the samples of its ceilings."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from made_up import CEILINGS_RESULTS, EPYC_GFLOP_PER_S, epyc_ceilings, matmul

from inference_benchmark.analysis.ceilings import WIDER, Ceilings, peaks


def test_peaks_are_of_the_fastest_sample_and_never_rise_with_size():
    best = peaks(CEILINGS_RESULTS)
    # Copy: 10 / 1 = 10; sum: 10 / 0.5 = 20. Products: 12 / 3 = 4 and 20 / 4 = 5.
    assert list(best.bandwidth) == [(10, 20.0), (20, 10.0)]
    assert best.flop_per_s == {"float32": 5.0, "tf32": 20.0}
    slow_cache = [
        {**result, "samples_s": [4.0]} if result["kernel"] != "sum" else result for result in CEILINGS_RESULTS
    ]
    slow_cache[1] = {**slow_cache[1], "samples_s": [4.0]}
    assert list(peaks(slow_cache).bandwidth) == [(10, 10.0), (20, 10.0)]
    ceilings = Ceilings.of(CEILINGS_RESULTS, ["cpu-contended"])
    assert ceilings == (best, ("cpu-contended",))
    assert ceilings.for_process(tf32=True).peaks.flop_per_s["float32"] == 20.0
    assert ceilings.for_process(tf32=False) == ceilings


def test_the_peak_of_a_link_is_that_of_its_fastest_kernel():
    kernels = {("disk", "read"): [4.0, 2.0], ("disk", "mapped"): [5.0, 1.0], ("host", "copy"): [0.5]}
    links = [
        {"kind": "link", "link": link, "kernel": name, "moved_bytes": 10, "samples_s": samples}
        for (link, name), samples in kernels.items()
    ]
    best = peaks([*CEILINGS_RESULTS, *links])
    assert best.link_bytes_per_s == {"disk": 10.0, "host": 20.0}
    assert best._replace(link_bytes_per_s={}) == peaks(CEILINGS_RESULTS)


def test_a_slow_emulation_is_the_limit_of_the_library_not_of_the_machine():
    assert peaks(epyc_ceilings().results).flop_per_s == pytest.approx(dict.fromkeys(EPYC_GFLOP_PER_S, 67e9))
    # Another kernel of the same library shows that the machine does int8 faster than fp32.
    results = [*epyc_ceilings().results, matmul("int8", 90.0, "torch.ops.quantized.linear (fbgemm)")]
    assert peaks(results).flop_per_s["int8"] == pytest.approx(90e9)
    # What has one kernel per dtype, without its name, is read the same.
    nameless = [{key: value for key, value in each.items() if key != "kernel"} for each in epyc_ceilings().results]
    assert peaks(nameless) == peaks(epyc_ceilings().results)


@given(some.dictionaries(some.sampled_from(["float32", *WIDER]), some.floats(1e-3, 1e6), min_size=1))
def test_no_dtype_is_slower_than_one_that_it_can_be_widened_to(gflop_per_s):
    best = peaks([matmul(*each) for each in gflop_per_s.items()]).flop_per_s
    assert best.keys() == gflop_per_s.keys(), "what was not measured stays unknown"
    for dtype, speed in best.items():
        candidates = [dtype, *(wider for wider in WIDER.get(dtype, ()) if wider in best)]
        assert speed == pytest.approx(max(gflop_per_s[each] for each in candidates) * 1e9)
        assert all(speed >= best[wider] for wider in candidates)


@pytest.mark.parametrize(("narrow", "wide"), [(narrow, wide) for narrow in WIDER for wide in WIDER[narrow]])
def test_a_wider_dtype_holds_every_number_of_the_narrower_one(narrow, wide):
    if narrow == "tf32":
        numbers = _in_tf32(torch.randn(10_000))
    elif narrow == "int8":
        numbers = torch.arange(-128, 128).float()
    else:
        numbers = torch.arange(2**16).to(torch.uint16).view(getattr(torch, narrow)).float()
    kept = _in_tf32(numbers) if wide == "tf32" else numbers.to(getattr(torch, wide)).float()
    assert torch.equal(kept.nan_to_num(0), numbers.nan_to_num(0))


def _in_tf32(numbers: torch.Tensor) -> torch.Tensor:
    """fp32 without the last 13 of its 23 fraction bits."""
    return (numbers.view(torch.int32) & ~0x1FFF).view(torch.float32)
