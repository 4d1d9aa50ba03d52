"""What a machine does at its best, from the samples of its ceilings."""

from __future__ import annotations

from made_up import CEILINGS_RESULTS

from inference_benchmark.analysis.ceilings import Ceilings, peaks


def test_peaks_are_medians_of_the_fastest_kernel_and_never_rise_with_size():
    best = peaks(CEILINGS_RESULTS)
    # Copy: 10 / 2 = 5; sum: 10 / 4. The larger set was seen at 10 per second, so the smaller cannot be slower.
    assert list(best.bandwidth) == [(10, 10.0), (20, 10.0)]
    assert best.flop_per_s == {"float32": 5.0, "tf32": 20.0}
    fastest = peaks(CEILINGS_RESULTS, min)
    assert list(fastest.bandwidth) == [(10, 20.0), (20, 10.0)]
    ceilings = Ceilings.of(CEILINGS_RESULTS, ["cpu-contended"])
    assert ceilings == (best, fastest, "cpu-contended")
    assert ceilings.for_process(tf32=True).typical.flop_per_s["float32"] == 20.0
    assert ceilings.for_process(tf32=False) == ceilings
