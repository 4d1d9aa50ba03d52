"""Rooflines against figures worked out by hand, the search for the edge, and the comparison of answers."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy
import pytest
import torch
from test_record import make_record, make_run
from transformers import AutoConfig, AutoModelForCausalLM

from conftest import make_cell
from inference_benchmark.analysis import ceilings, divergence, max_batch, metrics, roofline
from inference_benchmark.analysis.roofline import Floor, Matrix, Peaks, Shapes
from inference_benchmark.engines import shapes
from inference_benchmark.experiment.cells import CellError
from inference_benchmark.experiment.studies import Ceilings, ColumnStudy
from inference_benchmark.records import study_files, summary
from inference_benchmark.render import cell_texts

BLOOM_1B3 = {"model_type": "bloom", "hidden_size": 2048, "n_head": 16, "n_layer": 24, "vocab_size": 50258}
LLAMA = {
    "model_type": "llama", "hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2,
    "num_hidden_layers": 4, "intermediate_size": 256, "vocab_size": 1000,
}  # fmt: skip


def shapes_of(architecture: dict, dtype: torch.dtype, **more) -> Shapes:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**architecture, **more), dtype=dtype)
    return shapes.count(model, shapes.as_held, dtype)


def test_bloom_1b3_in_bf16_does_the_work_counted_by_hand():
    found = shapes_of(BLOOM_1B3, torch.bfloat16)
    # 1,311,535,104 parameters, each read once; the tied head is the embedding table.
    assert found.weight_bytes == 2 * 1_311_535_104
    assert sum(m.count * m.inputs * m.outputs for m in found.matrices if m.every_position) == 24 * 12 * 2048**2
    assert (found.kv_bytes, found.lookup_bytes, found.logit_bytes) == (24 * 2 * 2048 * 2, 2048 * 2, 50258 * 2)
    prefill = roofline.prefill(found, 1, 9)
    assert prefill.moved_bytes == (2_623_070_208 + 9 * (4_096 + 196_608) + 2 * 100_516, 0)
    assert prefill.flop == {"bfloat16": (2 * 9 * 1_207_959_552 + 2 * 102_928_384 + 4 * 49_152 * 45, 0)}
    decode = roofline.decode(found, 1, 9, 100)
    assert decode.count == 99
    assert decode.moved_bytes == (2_623_070_208 + 4_096 + 196_608 + 2 * 100_516 + 9 * 196_608, 196_608)
    assert decode.flop == {"bfloat16": (2 * 1_207_959_552 + 2 * 102_928_384 + 4 * 49_152 * 10, 4 * 49_152)}


def test_a_llama_with_grouped_keys_does_the_work_counted_by_hand():
    found = shapes_of(LLAMA, torch.float32)
    # Per layer q and o of 128 x 128, k and v of 128 x 64, three of 128 x 256; a head of its own; 9 norms of 128.
    block = 2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 256
    assert found.weight_bytes == 4 * (4 * block + 128 * 1000 + 9 * 128)
    assert found.kv_bytes == 4 * (4 * 2 * 2 * 32)
    assert found.attention_width == 4 * 4 * 32
    prefill = roofline.prefill(found, 3, 5)
    assert prefill.flop == {"float32": (2 * 15 * 4 * block + 2 * 3 * 128_000 + 4 * 512 * 3 * 15, 0)}
    assert prefill.moved_bytes[0] == found.weight_bytes + 15 * (512 + 2048) + 2 * 3 * 4000


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ({**LLAMA, "model_type": "mixtral", "num_local_experts": 4}, "a mixture of experts"),
        ({**LLAMA, "model_type": "mistral", "sliding_window": 8}, "a sliding window"),
    ],
)
def test_a_model_whose_work_cannot_be_counted_says_why(architecture, reason):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**architecture))
    found = shapes.facts(model)
    assert found["shapes"] is None
    assert reason in found["shapes_unknown"]


def test_parameters_that_no_one_counts_are_noticed():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**LLAMA))
        model.extra = torch.nn.Parameter(torch.empty(3, 4, 5))
    assert "60 of 847036 parameters" in shapes.facts(model)["shapes_unknown"]


SIMPLE = Shapes((Matrix("m", 2, 10, 10, 100, "float32"),), 0, 0, 4, 5, "float32", 0)


def test_a_floor_is_the_sum_over_steps_of_the_slower_of_memory_and_arithmetic():
    steps = roofline.decode(SIMPLE, 1, 3, 5)
    # Bytes 200 + 4 + 3 x 4 and 4 more each step; operations 400 + 4 x 5 x 4 and 20 more each step.
    moved = [216 + 4 * i for i in range(4)]
    flop = [480 + 20 * i for i in range(4)]
    # At 10 bytes/s and 22 flop/s: 21.6 22.0 22.4 22.8 s against 21.8 22.7 23.6 24.5 s.
    found = roofline.floor(steps, Peaks([(1, 10.0)], {"float32": 22.0}))
    assert found.seconds == pytest.approx(sum(max(b / 10, f / 22) for b, f in zip(moved, flop, strict=True)))
    assert found.bound_by == "arithmetic"
    slow_memory = roofline.floor(steps, Peaks([(1, 1.0)], {"float32": 22.0}))
    assert slow_memory == Floor(pytest.approx(sum(moved)), 0)
    assert slow_memory.bound_by == "memory"


def test_a_small_working_set_is_held_against_the_cache_it_fits_into():
    peaks = Peaks([(100, 50.0), (1000, 20.0), (10_000, 10.0)], {})
    asked = numpy.array([1, 100, 999, 1000, 5000, 10_000, 10**9])
    assert peaks.bytes_per_s(asked).tolist() == [50, 50, 50, 20, 20, 10, 10]


def ceilings_document(**changes) -> dict:
    results = [
        {"kind": "bandwidth", "kernel": "copy", "working_set_bytes": 10, "moved_bytes": 10, "samples_s": [1.0, 2.0, 9.0]},
        {"kind": "bandwidth", "kernel": "sum", "working_set_bytes": 10, "moved_bytes": 10, "samples_s": [0.5, 4.0, 5.0]},
        {"kind": "bandwidth", "kernel": "sum", "working_set_bytes": 20, "moved_bytes": 20, "samples_s": [2.0, 2.0, 2.0]},
        {"kind": "matmul", "dtype": "float32", "rows": 1, "inputs": 1, "outputs": 1, "flop": 12, "samples_s": [3.0, 4.0, 5.0]},
        {"kind": "matmul", "dtype": "float32", "rows": 2, "inputs": 1, "outputs": 1, "flop": 20, "samples_s": [4.0, 4.0, 4.0]},
        {"kind": "matmul", "dtype": "tf32", "rows": 2, "inputs": 1, "outputs": 1, "flop": 80, "samples_s": [4.0, 4.0, 4.0]},
    ]  # fmt: skip
    like = make_record()
    return {
        "schema_version": study_files.SCHEMA_VERSION,
        "study": json.loads(Ceilings("box", "cpu", None).to_json()),
        "outcome": "ok", "reason": None, "results": results, "limit": None, "conditions": {}, "flags": [], "model": {},
        **{name: like[name] for name in ("software", "device", "host", "environment", "git", "started_at", "ended_at")},
        **changes,
    }  # fmt: skip


def test_peaks_are_medians_of_the_fastest_kernel_and_never_rise_with_size():
    found = ceilings.peaks(ceilings_document())
    # Copy: 10 / 2 = 5; sum: 10 / 4. The larger set was seen at 10 per second, so the smaller cannot be slower.
    assert list(found.bandwidth) == [(10, 10.0), (20, 10.0)]
    assert found.flop_per_s == {"float32": 5.0, "tf32": 20.0}
    fastest = ceilings.peaks(ceilings_document(), min)
    assert list(fastest.bandwidth) == [(10, 20.0), (20, 10.0)]
    machine = ceilings.Machine.of(ceilings_document(flags=[{"name": "cpu-contended", "message": "m"}]))
    assert machine == (found, fastest, "cpu-contended")
    assert machine.for_process(tf32=True).typical.flop_per_s["float32"] == 20.0
    assert machine.for_process(tf32=False) == machine


def limited_record(latency_s: float, first_token_s: float, **more) -> dict:
    cell = make_cell(batch_size=1, workload={"prompt_tokens": 3, "new_tokens": 5}, engine="hf")
    run = make_run(samples_s=[latency_s] * 3, first_token_s=[first_token_s] * 3)
    model = {"parameters": 1, "weights_bytes": 1, "tf32": False, "shapes": json.loads(json.dumps(asdict(SIMPLE)))}
    return make_record(cell, runs=[run], model=model | more)


def test_limits_of_prefill_decode_and_whole_follow_from_floors_and_measured_times():
    peaks = Peaks([(1, 10.0)], {"float32": 100.0})
    record = limited_record(200.0, 50.0)
    found = metrics.limits(record, metrics.figures(record), peaks, peaks)
    prefill_s = (200 + 3 * 4) / 10
    decode_s = sum(216 + 4 * i for i in range(4)) / 10
    assert found["prefill"].floor_s == pytest.approx(prefill_s)
    assert found["prefill"].share == pytest.approx(prefill_s / 50)
    assert found["decode"].share == pytest.approx(decode_s / 150)
    assert found["whole"].share == pytest.approx((prefill_s + decode_s) / 200)
    assert {limit.bound_by for limit in found.values()} == {"memory"}
    assert all(limit.sure for limit in found.values())
    without = make_record()
    assert metrics.limits(without, metrics.figures(without), peaks, peaks) == {}
    assert metrics.limits(record, metrics.figures(record), Peaks([(1, 10.0)], {}), peaks) == {}


def test_a_cell_faster_than_its_limit_is_flagged_and_one_within_the_ceilings_scatter_is_not():
    document = ceilings_document()
    cell = limited_record(200.0, 50.0)
    found = {"results/box/ceilings.json": document}
    row = summary.row(cell, "", summary.Studies.of(found))
    # Prefill at the median: 212 bytes at 10 per second, 1 320 operations at 5 per second.
    assert row["prefill_floor_s"] == pytest.approx(1320 / 5)
    assert row["prefill_limit_share"] == pytest.approx(1320 / 5 / 50)
    assert row["prefill_bound_by"] == "arithmetic"
    assert "above-limit" in row["flags"]
    assert "prefill at 528.0% of its limit" in row["notes"]
    slow = summary.row(limited_record(20_000.0, 5_000.0), "", summary.Studies.of(found))
    assert slow["flags"] == ""
    assert cell_texts.limit_text(slow) == "5.3% a \\| 2.7% a \\| 3.4% a"
    # What was measured on another machine says nothing of this one.
    other = {path: {**document, "device": {"kind": "cpu", "name": "Other"}} for path in found}
    assert "whole_limit_share" not in summary.row(cell, "", summary.Studies.of(other))


# -- where memory ends -------------------------------------------------------------------------


def found_by(fits: int, flaky: frozenset[int] = frozenset()) -> tuple[max_batch.Edge, list[int]]:
    """The search on a memory for so many rows; flaky sizes fit once and then never again."""
    tries: list[dict] = []
    while (size := max_batch.next_batch_size(tries)) is not None:
        assert len(tries) < 100
        again = any(t["batch_size"] == size for t in tries)
        tries.append({"batch_size": size, "fits": size <= fits and not (again and size in flaky)})
    return max_batch.edge(tries), [t["batch_size"] for t in tries]


@pytest.mark.parametrize("fits", [0, 1, 2, 3, 17, 64, 100, 1023, 1024, 1025])
def test_the_search_finds_every_edge_and_confirms_it(fits):
    found, tried = found_by(fits)
    assert found == (fits, fits + 1)
    assert len(tried) <= 2 * math.ceil(math.log2(fits + 2)) + 2
    if fits:
        assert tried.count(fits) == 2
        assert tried[-1] == fits


def test_an_answer_that_does_not_hold_is_not_given():
    found, tried = found_by(17, frozenset({17, 16}))
    assert found == (15, 16)
    assert tried[-1] == 15


def test_doubling_comes_first_and_halving_after():
    assert found_by(5)[1] == [1, 2, 4, 8, 6, 5, 5]


# -- the same answers --------------------------------------------------------------------------


def test_equal_answers_differ_in_nothing():
    tokens, logits = numpy.array([[1, 2], [0, 1]]), numpy.random.default_rng(0).normal(size=(2, 2, 3))
    found = divergence.compare(tokens, tokens, logits, logits + 5)  # a constant changes no probability
    assert (found["token_agreement"], found["first_difference"]) == (1.0, [None, None])
    assert found["logits_error"]["max"] == pytest.approx(0, abs=1e-12)
    assert found["kl_nats"]["max"] == pytest.approx(0, abs=1e-12)


def test_differing_answers_differ_as_worked_out_by_hand():
    wanted, tokens = numpy.array([[0, 1, 1]]), numpy.array([[0, 0, 1]])
    # Two tokens: wanted logits (1, -1), (-1, 1), (0, 2); found (1, -1), (1, -1), (0, 2).
    wanted_logits = numpy.array([[[1.0, -1.0], [-1.0, 1.0], [0.0, 2.0]]])
    logits = numpy.array([[[1.0, -1.0], [1.0, -1.0], [0.0, 2.0]]])
    found = divergence.compare(wanted, tokens, wanted_logits, logits)
    assert found["token_agreement"] == pytest.approx(2 / 3)
    assert found["first_difference"] == [1]
    assert found["next_token_agreement"] == pytest.approx(2 / 3)
    assert found["logits_error"] == {"mean": pytest.approx(2 / 3), "max": pytest.approx(2)}
    # p = 1 / (1 + e^-2) for the likelier token; both swapped: KL = (2p - 1) x 2.
    p = 1 / (1 + math.exp(-2))
    assert found["kl_nats"] == {"mean": pytest.approx((2 * p - 1) * 2 / 3), "max": pytest.approx((2 * p - 1) * 2)}


def test_logits_that_are_no_numbers_give_no_figure():
    tokens, logits = numpy.array([[0]]), numpy.array([[[1.0, 2.0]]])
    found = divergence.compare(tokens, tokens, logits, numpy.array([[[1.0, float("nan")]]]))
    assert found["logits_error"] == found["kl_nats"] == {"mean": None, "max": None}


# -- files of studies --------------------------------------------------------------------------


def test_a_study_comes_back_and_one_of_something_else_is_refused(tmp_path):
    path = tmp_path / "ceilings.json"
    study_files.write(ceilings_document(), path)
    assert study_files.load_for(Ceilings("box", "cpu", None), path) == ceilings_document()
    with pytest.raises(study_files.StudyError, match=r"another configuration: threads was None, is now 4"):
        study_files.load_for(Ceilings("box", "cpu", 4), path)
    study_files.write(ceilings_document(), path)
    assert len(list(tmp_path.glob("ceilings.superseded-*.json"))) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 0}, "schema_version is 0; this program reads version 1"),
        ({"results": []}, "outcome ok without results"),
        ({"results": [{"kind": "matmul"}]}, r"results\[0\] must contain"),
        ({"results": [{"batch_size": 1, "fits": True}]}, r"results\[0\]"),
        ({"outcome": "oom"}, "contradicts reason"),
        ({"extra": 1}, "must not contain"),
    ],
)
def test_what_is_no_study_is_neither_read_nor_written(tmp_path, change, message):
    path = tmp_path / "ceilings.json"
    with pytest.raises(study_files.StudyError, match=message):
        study_files.write(ceilings_document(**change), path)
    assert not path.exists()
    path.write_text(json.dumps(ceilings_document(**change)))
    with pytest.raises(study_files.StudyError, match=message):
        study_files.load_for(Ceilings("box", "cpu", None), path)


def test_studies_of_another_version_or_kind_are_not_begun():
    study = ColumnStudy.of("max-batch", make_cell())
    assert ColumnStudy.from_json(study.to_json()) == study
    for change in ({"version": 0}, {"kind": "min-batch"}):
        with pytest.raises(CellError, match="there is no version"):
            ColumnStudy.from_json(json.dumps(json.loads(study.to_json()) | change))
    with pytest.raises(CellError, match="not JSON"):
        Ceilings.from_json("{")
