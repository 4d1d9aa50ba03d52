"""The check of a new GPU: its verdicts, its runner, and the whole of it on the CPU."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy
import psutil
import pytest
from made_up import make_record, make_run
from running import ENGINES, PROGRAMS, REPO, fake_gpus, shorten_ceilings

from gpu_checks import of_cells, of_engines, of_studies, order, setup
from gpu_checks.runner import Check, Verdict, chosen, may_take_s, ok_if, overtime, run_checks, skipped
from inference_benchmark import engines
from inference_benchmark.analysis.roofline import Peaks
from inference_benchmark.engines import PACKAGES
from inference_benchmark.models.architecture import QUANTISED

ON_CPU, ON_CUDA = (order.checks(setup.SETUPS[device]) for device in ("cpu", "cuda"))


#: Without a limit on time: on a busy machine a check takes many times as long.
SCRIPT = (REPO / "scripts/gpu_check.py", "--minutes", "inf")


def run_script(*arguments: str, **environ: str) -> subprocess.CompletedProcess:
    return PROGRAMS.run([*SCRIPT, *arguments], environ={**os.environ, **environ})


# -- the whole of it -----------------------------------------------------------------------------------


def test_on_the_cpu_every_check_ends_well_or_is_skipped_by_name(tmp_path):
    """With small ceilings."""
    shutil.copytree(REPO / "scripts", tmp_path / "scripts")
    shorten_ceilings(tmp_path)
    script, *options = SCRIPT
    done = ENGINES.run([tmp_path / script.relative_to(REPO), *options, "--device", "cpu", "--precisions", "fp32"])
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    verdicts = {check["name"]: check["verdict"] for check in document["checks"]}
    evidence = {check["name"]: check["evidence"] for check in document["checks"]}
    assert list(verdicts) == [check.name for check in ON_CPU if not check.name.endswith("/int8")]
    assert {"hf", "hf-static", "ctranslate2"} == {name.split("/")[1] for name in verdicts if name.startswith("cells/")}
    cuda_only = {
        "tf32",
        "yardstick",
        "capture",
        "rows/hf-static",
        "oom/hf-static",
        "search/hf-static",
        "timeline/hf-static",
        "placement/cpu-offload",
        "placement/disk-offload",
        "placement/layers",
    }
    assert {name for name, text in evidence.items() if text == "CUDA only"} == cuda_only
    # A machine may lack a counter of energy or a compiler.
    for name in verdicts.keys() - cuda_only - {"energy", "recordings"}:
        assert verdicts[name] == "ok", evidence[name]
    lines = {line.split()[0]: line for line in done.stderr.splitlines()[:-1]}
    assert lines.keys() == verdicts.keys()
    for name, line in lines.items():
        assert re.match(rf"{name} +{verdicts[name]} +\d+\.\d s  \S", line), line
    n_ok, n_skipped = (list(verdicts.values()).count(word) for word in ("ok", "skipped"))
    assert f": {n_ok} ok, 0 failed, {n_skipped} skipped, " in done.stderr.splitlines()[-1]
    assert document["device"]["kind"] == "cpu"
    assert document["software"]["torch"]
    by_name = {check["name"]: check for check in document["checks"]}
    cell = by_name["cells/hf/fp32"]["facts"]["batch 4"]
    assert cell["throughput_tok_per_s"] > 0
    assert set(cell["seconds"]) == {"start", "load", "warm-up", "timed"}
    assert min(cell["seconds"].values()) > 0
    assert by_name["rows/hf"]["facts"]["rows"] * 16 > 65_535
    assert by_name["oom/hf"]["facts"]["limit"] == {"name": "memory_limit", "bytes": 200_000_000}
    assert by_name["search/hf"]["facts"]["fits"] >= 1
    assert by_name["caches"]["facts"]["live"] == [1, 1, 1, 1, 1, 0]


def test_a_gpu_that_cannot_be_used_fails_in_one_line(tmp_path):
    """The driver of the fake GPU is older than any torch with CUDA that is supported."""
    gpu = fake_gpus(tmp_path)
    gpu["FAKE_NVML"] = json.dumps({**json.loads(gpu["FAKE_NVML"]), "cuda_driver_version": 10020})
    done = run_script("--only", "ceilings", **gpu)
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["device"]["name"] == "NVIDIA Fake A"
    (check,) = document["checks"]
    assert check["verdict"] == "failed"
    assert re.match(
        r"MeasurementError: (torch .* is built without CUDA|the driver .* knows CUDA up to)", check["evidence"]
    )
    assert check["output"][0].startswith("Traceback")
    assert len(done.stderr.splitlines()) == 2, done.stderr


def test_what_cannot_be_checked_is_named(tmp_path):
    no_gpu = fake_gpus(tmp_path, n=0)
    done = run_script("--device", "cuda", **no_gpu)
    assert (done.returncode, done.stderr) == (1, "gpu_check.py: no GPU is visible here\n")
    done = run_script("--device", "cpu", "--only", "cell", **no_gpu)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "gpu_check.py: there is no check 'cell'; allowed: weights, forked/hf, recordings, timeline/hf, "
    )
    (tmp_path / "logs").mkdir()
    done = run_script("--device", "cpu", "--folder", str(tmp_path), **no_gpu)
    assert (done.returncode, done.stderr) == (1, f"gpu_check.py: {tmp_path}/logs exists; name a new folder\n")


def test_on_cuda_every_engine_and_precision_is_a_check_and_only_what_is_not_installed_is_skipped():
    needing = {
        precision for package in PACKAGES.values() if not package.is_dependency for precision in package.needed_for
    }
    optional = {f"cells/{engine}/{precision}" for engine in ("hf", "hf-static") for precision in needing}
    names = [check.name for check in ON_CUDA]
    optional |= {name for name in names if "ctranslate2" in name.split("/")} | {"placement/layers", "placement/tensor"}
    skipped = {check.name: check.skip for check in ON_CUDA if check.skip}
    assert skipped.keys() <= optional
    assert set(skipped.values()) <= {
        "the package torchao is not installed",
        "there is no libcublas.so.12; pip install -r envs/ctranslate2-cuda.lock",
        "one GPU is visible here",
    }
    with_two = order.checks(replace(setup.SETUPS["cuda"], pair="GPU-a,GPU-b"))
    assert not {"placement/layers", "placement/tensor"} & {check.name for check in with_two if check.skip}
    assert names[:5] == ["weights", "forked/hf", "recordings", "timeline/hf", "cells/hf/int8"]
    assert len(set(names)) == len(names)
    compiling = [name for name in names if "hf-static" in name or name in ("memory", "tf32", "caches", "capture")]
    assert max(map(names.index, ("ceilings", "search/hf", "yardstick"))) < min(map(names.index, compiling))
    for engine, entry in engines.ENGINES.items():
        if engine != "fake" and not entry.locks and entry.has_family("bloom"):
            drawn = entry.precisions.keys() - QUANTISED  # weights that are drawn are not quantised already
            assert {f"cells/{engine}/{precision}" for precision in drawn} <= set(names)
            assert {f"{kind}/{engine}" for kind in ("rows", "oom", "search")} <= set(names)
    assert names.index("search/hf") < names.index("cells/hf/nf4"), (
        "precisions that are not in the default grid come last"
    )
    for check in ON_CUDA:
        assert set(check.needs) <= set(names[: names.index(check.name)]), check.name


@pytest.mark.parametrize(
    ("places", "tokens", "verdict"),
    [(("cuda:0", "cpu"), "a", "ok"), (("cuda:0", "cpu"), "b", "failed"), (("cuda:0",), "a", "failed")],
)
def test_a_placement_is_right_if_weights_are_in_several_places_and_tokens_are_the_same(places, tokens, verdict):
    where = {place: {"modules": 1, "bytes": 10**9} for place in places}
    placed = make_record(model={"placement": where}, tokens_sha256=[tokens], samples_s=[1.0] * 3)
    found = of_cells.compared_placement(placed, make_record(tokens_sha256=["a"], samples_s=[0.5] * 3))
    assert found.verdict == verdict
    assert found.evidence.startswith("1 GB on cuda:0")
    assert found.evidence.endswith(f"{'the same' if tokens == 'a' else 'other'} tokens in 2.00 of the time")


# -- the runner ----------------------------------------------------------------------------------------


def results(tmp_path: Path, planned: list[Check], budget_s: float = math.inf) -> dict[str, Verdict]:
    return {check.name: verdict for check, verdict, _ in run_checks(planned, budget_s, 1, tmp_path)}


FINE = partial(ok_if, True, "fine", {"figure": 1.5})
NO_END = partial(time.sleep, 1e6)


def unlimited(name: str, run, **options) -> Check:
    return Check(name, run, math.inf, **options)


def test_a_check_that_raises_crashes_or_hangs_is_failed_and_the_others_run(tmp_path):
    planned = [
        unlimited("raises", partial(int, "x")),
        unlimited("crashes", os.abort),
        unlimited("exits", partial(subprocess.run, ["sh", "-c", "echo last words; kill -TERM $PPID"])),
        Check("hangs", NO_END, 2),
        unlimited("is fine", FINE),
        unlimited("follows", FINE, needs=("is fine",)),
        unlimited("cannot follow", FINE, needs=("crashes", "is fine")),
        unlimited("elsewhere", FINE, needs=("crashes",), skip="CUDA only"),
    ]
    assert results(tmp_path, planned) == {
        "raises": ("failed", "ValueError: invalid literal for int() with base 10: 'x'", {}),
        "crashes": ("failed", "its process ended with SIGABRT", {}),
        "exits": ("failed", "its process ended with SIGTERM: last words", {}),
        "hangs": ("failed", "no end after 2 s", {}),
        "is fine": ("ok", "fine", {"figure": 1.5}),
        "follows": ("ok", "fine", {"figure": 1.5}),
        "cannot follow": ("skipped", "needs crashes", {}),
        "elsewhere": ("skipped", "CUDA only", {}),
    }
    assert "Traceback" in (tmp_path / "raises.log").read_text()


def test_processes_that_a_check_has_started_end_with_it(tmp_path):
    started = tmp_path / "pid"
    command = ["sh", "-c", f"sleep 1000000 & echo $! > {started}; exit 1"]
    planned = [unlimited("leaves one behind", partial(subprocess.run, command, check=True))]
    assert results(tmp_path, planned)["leaves one behind"].verdict == "failed"
    while runs(int(started.read_text())):  # the kernel takes its time
        time.sleep(0.05)


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_is_left_when_the_budget_is_spent_is_skipped(tmp_path):
    planned = [unlimited("long", NO_END), unlimited("late", FINE)]
    assert results(tmp_path, planned, budget_s=2) == {
        "long": ("skipped", "no time left; ended after 2 s", {}),
        "late": ("skipped", "no time left", {}),
    }


def test_several_at_a_time_and_what_they_need(tmp_path):
    """The slow one ends after the one beside it: it waits for a file."""
    until = tmp_path / "until"
    command = ["sh", "-c", f"until [ -e {until} ]; do sleep 0.1; done; exit 1"]
    planned = [
        unlimited("slow", partial(subprocess.run, command, check=True)),
        unlimited("after it", FINE, needs=("slow",)),
        unlimited("beside it", FINE),
    ]
    ended = []
    for check, _, _ in run_checks(planned, math.inf, 2, tmp_path):
        ended.append(check.name)
        until.touch()
    assert ended == ["beside it", "slow", "after it"]


def test_the_time_that_a_check_may_take():
    assert may_take_s(60, budget_s=480, spent_s=0) == 60
    assert may_take_s(60, budget_s=480, spent_s=450) == 30
    assert may_take_s(60, budget_s=480, spent_s=480) is None
    assert overtime(60, 60) == ok_if(False, "no end after 60 s")
    assert overtime(60, 30) == skipped("no time left; ended after 30 s")


def test_checks_are_chosen_by_name_or_kind():
    def names(*only: str) -> list[str]:
        return [check.name for check in chosen(ON_CUDA, only)]

    assert names("ceilings", "weights") == ["weights", "ceilings"]
    assert names("cells/hf", "ceilings")[-1] == "cells/hf/int4-weight-only"
    assert set(names("cells/hf")) == {f"cells/hf/{precision}" for precision in setup.SETUPS["cuda"].precisions}
    assert names("rows") == ["rows/hf", "rows/ctranslate2", "rows/hf-static"]
    with pytest.raises(LookupError, match="there is no check 'row'; allowed: weights, "):
        names("rows", "row")


# -- verdicts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("joules", "power_w", "verdict", "difference"),
    [(3000, 300, "ok", 0), (3450, 300, "ok", 0.15), (3451, 300, "failed", 0.1503), (2540, 300, "failed", -0.1533)],
)
def test_counted_energy_against_power_times_time(joules, power_w, verdict, difference):
    result = of_cells.compared_energy(joules, 10, power_w)
    assert (result.verdict, result.facts["difference"]) == (verdict, pytest.approx(difference, abs=1e-4))


def test_the_evidence_of_energy_has_its_figures():
    assert of_cells.compared_energy(3120, 10, 300).evidence == (
        "3,120 J in 10.0 s are 312 W, +4.0% from the gauge's median of 300 W; allowed: 15%"
    )
    assert of_cells.compared_energy(50, 2, None) == (
        "ok",
        "50 J in 2.0 s are 25 W; no gauge of power to compare it with",
        {"joules": 50, "seconds": 2, "power_w": None},
    )


def h100(**changes: float) -> Peaks:
    """90 % of the data sheet's bandwidth and 80 % of its products, but for changes."""
    speeds = {"float32": 53.6e12, "bfloat16": 791.2e12, "float16": 791.2e12, "int8": 1583.2e12}
    return Peaks([(2**24, 9e12), (2**33, changes.pop("bandwidth", 3.015e12))], {**speeds, **changes})


def test_ceilings_against_the_data_sheet():
    result = of_studies.against_data_sheet("NVIDIA H100 80GB HBM3", h100())
    assert result.verdict == "ok"
    assert result.evidence == "of the data sheet: bandwidth 90%, float32 80%, bfloat16 80%, float16 80%, int8 80%"
    assert result.facts["shares"]["bandwidth"] == pytest.approx(0.9)
    for changes, odd in (
        ({"bandwidth": 1.67e12}, "bandwidth"),
        ({"bfloat16": 1.06 * 989e12}, "bfloat16"),
        ({"float16": 494e12, "int8": 0.0}, "float16, int8"),
    ):
        result = of_studies.against_data_sheet("NVIDIA H100 80GB HBM3", h100(**changes))
        assert result.verdict == "failed"
        assert result.evidence.endswith(f"; not within 50% and 105%: {odd}")
    for changes in ({"bandwidth": 1.68e12}, {"bfloat16": 1.04 * 989e12}, {"tf32": 1e12}):
        assert of_studies.against_data_sheet("NVIDIA H100 80GB HBM3", h100(**changes)).verdict == "ok"
    unknown = of_studies.against_data_sheet("NVIDIA Fake A", h100())
    assert (unknown.verdict, unknown.evidence) == ("ok", "no data sheet figures for NVIDIA Fake A")
    assert unknown.facts["speeds"]["bandwidth"] == 3.015e12


def compiled(**changes: int) -> dict:
    compilation = {"graphs": 1, "seconds": 20.0, "cuda_graphs_recorded": 2, "cuda_graphs_skipped": 0}
    while_timed = {"graphs_while_timed": 0, "cuda_graphs_recorded_while_timed": 0}
    return {
        "compilation": {name: changes.get(name, count) for name, count in compilation.items()},
        **{name: changes.get(name, count) for name, count in while_timed.items()},
    }


def test_recordings():
    assert of_cells.recordings(compiled(), "cuda").verdict == "ok"
    for name, count in (
        ("graphs", 0), ("cuda_graphs_recorded", 0), ("cuda_graphs_skipped", 1), ("graphs_while_timed", 1),
        ("cuda_graphs_recorded_while_timed", 2),
    ):  # fmt: skip
        result = of_cells.recordings(compiled(**{name: count}), "cuda")
        assert result.verdict == "failed", name
        assert f"{name} {count}" in result.evidence
    eager = {"compilation": {"graphs": 0, "seconds": 0.0, "why_not": "there is no C compiler"}}
    assert of_cells.recordings(eager, "cuda") == ("failed", "not compiled: there is no C compiler", {})
    assert of_cells.recordings(eager, "cpu") == ("skipped", "there is no C compiler", {})
    assert of_cells.recordings({"compilation": {"graphs": 1, "seconds": 1.0}}, "cpu").verdict == "ok"


def test_amounts_of_memory_contain_each_other():
    memory = {"loaded_bytes": 3e9, "peak_allocated_bytes": 4e9, "peak_reserved_bytes": 5e9, "device_total_bytes": 80e9}
    result = of_cells.memory_order(make_record(runs=(make_run(memory=memory),)))
    assert result == ("ok", "loaded 3 GB <= peak_allocated 4 GB <= peak_reserved 5 GB <= device_total 80 GB", memory)
    for name, n_bytes in (("loaded_bytes", 4.5e9), ("peak_allocated_bytes", 5.5e9), ("device_total_bytes", 4.9e9)):
        wrong = make_record(runs=(make_run(memory={**memory, name: n_bytes}),))
        assert of_cells.memory_order(wrong).verdict == "failed", name


@pytest.mark.parametrize(("slower", "verdict"), [((1, 1), "ok"), ((1.1, 1.6), "ok"), ((1, 1.7), "failed")])
def test_a_device_that_its_own_cell_slows_counts_as_slower_below_60_percent(slower, verdict):
    memory, arithmetic = slower
    times = {"moved_bytes": 10**8, "flop": 10**9, "memory_s": [0.01] * 2, "arithmetic_s": [0.01] * 2}
    hot = {**times, "memory_s": [0.01 * memory] * 2, "arithmetic_s": [0.01 * arithmetic] * 2}
    result = of_cells.yardsticks({"before": times, "after": hot})
    assert result.verdict == verdict
    assert result.facts == {"memory": pytest.approx(1 / memory), "arithmetic": pytest.approx(1 / arithmetic)}


def test_caches_are_one_and_hold_no_second_one():
    GB = 10**9
    held = [1.4 * GB, 1.2 * GB, 1.2 * GB, 1.2 * GB, 1.2 * GB, 0.1 * GB]
    counts = [1, 1, 1, 1, 1, 0]
    assert of_engines.caches(counts, 1.1 * GB, held).verdict == "ok"
    assert of_engines.caches(counts, 1.1 * GB, None).verdict == "ok"
    assert of_engines.caches([1, 2, 1, 1, 1, 0], 1.1 * GB, held).verdict == "failed"
    assert of_engines.caches([1, 1, 1, 1, 1, 1], 1.1 * GB, held).verdict == "failed"
    for wrong in ([*held[:3], 2.3 * GB, *held[4:]], [*held[:5], 1.2 * GB], [*[0.5 * GB] * 5, 0]):
        assert of_engines.caches(counts, 1.1 * GB, wrong).verdict == "failed", wrong


def test_answers_that_differ_by_more_than_rounding():
    result = {"rows": 8, "steps": 16, "token_agreement": 1 - 3 / 128, "logits_error": {"mean": 3e-6, "max": 9e-6}}
    near_tie = of_cells.compared_answers(result)
    assert near_tie.verdict == "ok"
    assert near_tie.evidence == (
        "3 of 128 tokens differ from hf's, with logits that differ by up to 9e-06 of their norm; rounding is below 0.0001"
    )
    for error in (1.1e-4, None):
        assert of_cells.compared_answers({**result, "logits_error": {"max": error}}).verdict == "failed"


def test_gaps_of_tokens_are_those_of_the_first_difference():
    logits = numpy.zeros((2, 2, 4), dtype=numpy.float32)
    logits[0, 1] = [0, 2, 4, 6]  # of standard deviation 5 ** 0.5
    logits[1, 0] = [3, 1, 1, 3]  # of 1
    tokens, wanted = numpy.array([[0, 1], [0, 0]]), numpy.array([[0, 3], [3, 1]])
    assert of_engines.token_gaps(tokens, wanted, logits) == pytest.approx([4 / 5**0.5, 0])


def test_what_the_seconds_of_a_cell_consist_of():
    """Nine seconds, of which a run has 1 of loading, 1 of warm-up, 1.5 of timed calls and 0.3 of first tokens."""
    assert of_cells.wall_split_s(make_record()) == pytest.approx(
        {"start": 5.2, "load": 1.0, "warm-up": 1.0, "timed": 1.8}
    )
