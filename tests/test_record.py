"""Records are written whole or not at all, kept when superseded, and refused when they are not what was asked for."""

from __future__ import annotations

import json

import pytest

from conftest import MEASUREMENT, make_cell
from inference_benchmark import files
from inference_benchmark.experiment.cells import Experiment
from inference_benchmark.machine import cgroups, provenance
from inference_benchmark.records import collect, comparability, record, summary


def make_run(**changes) -> dict:
    fields = {
        "load_s": 1.0,
        "warmup_s": [0.5, 0.5],
        "samples_s": [0.4, 0.5, 0.6],
        "first_token_s": [0.1, 0.1, 0.1],
        "tokens_sha256": ["a" * 64],
        "memory": {"peak_rss_bytes": 10**9},
        "energy": None,
        "conditions": {},
    }
    return {**fields, **changes}


STABLE = {"stable": True, "reasons": [], "outliers": None, "drift": None}
DRIFTS = {"stable": False, "reasons": [{"name": "drift", "message": "slower"}], "outliers": 1, "drift": 0.1}
SHARED = [{"name": "gpu-shared", "message": "2 others"}]


def make_record(of=None, **changes) -> dict:
    """A record; a change named as a part of a run goes there, for all its runs are alike."""
    cell = of or make_cell()
    run = make_run(**{name: changes.pop(name) for name in make_run() if name in changes})
    fields = {
        "schema_version": record.SCHEMA_VERSION,
        "cell": json.loads(cell.to_json()),
        "outcome": "ok",
        "reason": None,
        "runs": [run] * cell.measurement["processes"],
        "stability": STABLE,
        "flags": [],
        "model": {"parameters": 1, "weights_bytes": 4},
        "software": {"python": "3.11", "torch": "2.13.0"},
        "device": {"kind": "cpu", "name": "Some CPU"},
        "host": {"name": "h", "memory_bytes": 4 * 10**9, "memory_limit": None},
        "environment": {},
        "git": {"commit": "c" * 40, "dirty": False},
        "started_at": "2026-01-01T00:00:00.000+00:00",
        "ended_at": "2026-01-01T00:00:09.000+00:00",
    }
    if changes.get("outcome", "ok") != "ok":
        fields["stability"] = None
    return {**fields, **changes}


OOM = {"phase": "load", "exception_type": "X", "message": "m", "limit": None, "evidence": {}}


def test_a_record_comes_back_as_it_went(tmp_path):
    path = tmp_path / "a/b/batch-2.json"
    record.write(make_record(), path)
    assert record.load_for(make_cell(), path) == make_record()
    assert [p.name for p in path.parent.iterdir()] == ["batch-2.json"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~files._umask()


def test_an_earlier_record_is_kept_beside_the_new_one(tmp_path):
    path = tmp_path / "batch-2.json"
    for load_s in (1.0, 2.0, 3.0):
        record.write(make_record(load_s=load_s), path)
    kept = sorted(json.loads(p.read_text())["runs"][0]["load_s"] for p in tmp_path.glob("batch-2.superseded-*.json"))
    assert kept == [1.0, 2.0]
    assert record.load(path)["runs"][0]["load_s"] == 3.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 0}, f"schema_version is 0; this program reads version {record.SCHEMA_VERSION}"),
        ({"schema_version": 2}, "schema_version is 2"),
        ({"outcome": "fine"}, "outcome must be one of"),
        ({"samples_s": [1.0, 2.0]}, "2 of samples_s, fewer than min_cycles"),
        ({"first_token_s": []}, "0 of first_token_s, fewer than min_cycles"),
        ({"runs": []}, "outcome ok without a run"),
        ({"runs": [make_run(), make_run()]}, "2 runs, not one per process"),
        ({"stability": None}, "without a verdict"),
        ({"flags": [{"name": "x"}]}, r"flags\[0\] must contain"),
        ({"samples_s": [1.0, 2.0, "x"]}, r"runs\[0\].samples_s\[2\] must be number"),
        ({"samples_s": [1.0, 2.0, 0.0]}, r"samples_s\[2\] must be bigger than 0"),
        ({"samples_s": [1.0, 2.0, float("nan")]}, "no finite number"),
        ({"reason": OOM}, "contradicts reason"),
        ({"outcome": "oom"}, "contradicts reason"),
        ({"cell": {}}, "cell must contain"),
        ({"extra": 1}, "must not contain .* properties"),
    ],
)
def test_what_breaks_the_format_is_neither_read_nor_written(tmp_path, change, message):
    path = tmp_path / "batch-2.json"
    with pytest.raises(record.RecordError, match=message):
        record.write(make_record(**change), path)
    assert not list(tmp_path.iterdir())
    path.write_text(json.dumps(make_record(**change)))
    with pytest.raises(record.RecordError, match=message):
        record.load(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema_version": 1}', "\0"])
def test_what_is_no_record_is_refused(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(record.RecordError):
        record.load(tmp_path / "r.json")


def test_a_record_of_other_settings_is_refused_naming_them(tmp_path):
    record.write(make_record(), tmp_path / "r.json")
    wanted = make_cell(measurement={**MEASUREMENT, "min_cycles": 5})
    with pytest.raises(record.RecordError, match=r"another configuration: measurement\.min_cycles was 3, is now 5"):
        record.load_for(wanted, tmp_path / "r.json")


def test_a_full_disk_leaves_what_was_there(small_disk):
    path = small_disk / "batch-2.json"
    record.write(make_record(), path)
    (small_disk / "filler").write_bytes(b"\0" * (200_000))
    with pytest.raises(OSError, match="No space left"):
        record.write(make_record(host={"name": "x" * 100_000}), path)
    assert record.load(path) == make_record()
    assert sorted(p.name for p in small_disk.iterdir()) == ["batch-2.json", "filler"]
    with pytest.raises(OSError, match="No space left"):
        files.check_writable(small_disk / "x.json")


def experiment(*batch_sizes: int) -> Experiment:
    cell = make_cell()
    return Experiment(
        "box", "cpu", (cell.model,), (cell.workload,), ("fake",), ("fp32",), batch_sizes, None, dict(cell.measurement)
    )


def test_collecting_names_every_record_that_cannot_be_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = list(experiment(1, 2, 3, 4).cells())
    record.write(make_record(cells[0]), tmp_path / cells[0].path)
    (tmp_path / cells[1].path).write_text("{")
    (tmp_path / cells[2].path).write_text(json.dumps(make_record(cells[0])))
    with pytest.raises(collect.CollectError) as caught:
        collect.load_records(experiment(1, 2, 3, 4))
    found = caught.value.problems
    assert len(found) == 3
    assert f"{cells[1].path}: not JSON" in found[0]
    assert f"{cells[2].path}: measured under another configuration: batch_size was 1, is now 3" in found[1]
    assert f"{cells[3].path}: No such file" in found[2]


def test_a_summary_row_holds_the_figures_of_its_samples(tmp_path):
    row = summary.row(make_record(samples_s=[0.4, 0.5, 0.7], stability=DRIFTS, flags=SHARED))
    assert row["throughput_tok_per_s"] == pytest.approx(2 * 8 * 3 / 1.6)
    assert row["ms_per_token"] == pytest.approx(1000 * 1.6 / 48)
    assert row["latency_s"] == pytest.approx(1.6 / 3)
    assert (row["latency_min_s"], row["latency_max_s"], row["cycles"]) == (0.4, 0.7, 3)
    assert row["first_token_s"] == pytest.approx(0.1)
    assert row["time_per_output_token_s"] == pytest.approx((1.6 / 3 - 0.1) / 7)
    assert row["latency_low_s"] < row["latency_s"] < row["latency_high_s"]
    assert row["latency_sd_s"] == pytest.approx(0.152753, abs=1e-6)
    assert (row["latency_median_s"], row["latency_p95_s"], row["memory_share"]) == (0.5, None, 0.25)
    assert (row["stable"], row["unstable_because"], row["flags"]) == (False, "drift", "gpu-shared")
    assert (row["notes"], row["outliers"], row["drift"]) == ("slower; 2 others", 1, 0.1)
    assert set(row) <= set(summary.COLUMNS)
    oom = summary.row(make_record(outcome="oom", samples_s=[0.4], reason=OOM))
    assert (oom["outcome"], oom["memory_share"]) == ("oom", 0.25)
    assert "throughput_tok_per_s" not in oom
    assert (oom["reason_phase"], oom["reason"]) == ("load", "m")


def test_a_95th_percentile_needs_twenty_samples():
    samples = [float(n) for n in range(1, 21)]
    assert summary.row(make_record(samples_s=samples))["latency_p95_s"] == pytest.approx(19.05)
    assert summary.row(make_record(samples_s=samples[:19]))["latency_p95_s"] is None


def test_names_in_a_summary_stay_text(tmp_path):
    cell = make_cell(model={"name": "nan", "hub": "x", "revision": "1e5"}, machine="007")
    summary.summarise([make_record(cell)]).to_csv(tmp_path / "s.csv", index=False)
    back = summary.read_summary(tmp_path / "s.csv").iloc[0]
    assert (back["model"], back["machine"], back["batch_size"]) == ("nan", "007", 2)


def test_what_a_cell_could_not_find_out_disagrees_with_nothing():
    whole = make_record(
        make_cell(batch_size=1), model={"threads": 2, "cuda": None}, environment={"OMP_NUM_THREADS": "2"}
    )
    cut_off = make_record(
        make_cell(batch_size=2), outcome="oom", reason=OOM, model={}, environment={"OMP_NUM_THREADS": "2"}
    )
    assert comparability.disagreements([whole, cut_off]) == []
    assert comparability.variants([whole, cut_off]) == ["", ""]
    others = make_record(make_cell(batch_size=4), model={"threads": 4}, device={"name": "Other CPU"}, environment={})
    found = comparability.disagreements([whole, cut_off, others])
    path = "results/box/tiny/prompt4-new8/fake/fp32/batch-4.json"
    assert found[:3] == [
        f"tiny prompt4-new8: device differs: Some CPU in 2 cells; Other CPU in {path}",
        "tiny prompt4-new8: threads differs: 2 in 1 cells; 4 in " + path,
        f"tiny prompt4-new8: environment OMP_NUM_THREADS differs: 2 in 2 cells; not set in {path}",
    ]
    assert comparability.disagreements([whole, {**others, "cell": {**others["cell"], "model": {"name": "m2"}}}]) == []


def test_only_variables_that_change_speed_are_kept_and_no_secret():
    environ = {
        "OMP_PROC_BIND": "true", "PYTORCH_CUDA_ALLOC_CONF": "x", "NVIDIA_TF32_OVERRIDE": "1", "LD_PRELOAD": "jemalloc.so",
        "CUDA_VISIBLE_DEVICES": "3", "CUDA_HOME": "/usr", "TORCH_HOME": "/t", "CUDA_VERSION": "13", "HF_TOKEN": "hush",
        "TRANSFORMERS_API_KEY": "hush", "HOME": "/root", "NVIDIA_VISIBLE_DEVICES": "all",
    }  # fmt: skip
    assert set(provenance.environment(environ)) == {
        "OMP_PROC_BIND", "PYTORCH_CUDA_ALLOC_CONF", "NVIDIA_TF32_OVERRIDE", "LD_PRELOAD",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("membership", "files", "limit", "kills"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "500", "a/memory.max": "900", "a/b/memory.events": "oom 1\noom_kill 2\n"}, 500, 2),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "900", "a/memory.events": "oom_kill 3\n"}, 900, 3),
        ("0::/gone\n", {"memory.max": "max"}, None, None),
        ("4:memory:/x\n0::/\n", {"memory/x/memory.limit_in_bytes": "700", "memory/x/memory.oom_control": "under_oom 0\noom_kill 1\n"}, 700, 1),
        ("4:memory:/x\n", {"memory/x/memory.limit_in_bytes": "9223372036854771712"}, None, None),
    ],
)  # fmt: skip
def test_memory_cgroups_of_both_versions_are_understood(tmp_path, membership, files, limit, kills):
    (tmp_path / "membership").write_text(membership)
    root = tmp_path / "cgroup"
    root.mkdir()
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)

    def groups():
        return cgroups.cgroups("memory", tmp_path / "membership", root)

    found = cgroups.memory_limit(groups())
    assert (found and found["bytes"]) == limit
    assert next(iter(cgroups.oom_kills(groups()).values()), None) == kills


@pytest.mark.parametrize(
    ("membership", "files", "cpus"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n"}, 1.5),
        ("4:cpu,cpuacct:/x\n0::/\n", {"cpu/x/cpu.cfs_quota_us": "50000\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 0.5),
        ("4:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, None),
    ],
)  # fmt: skip
def test_cpu_limits_of_both_versions_are_understood(tmp_path, membership, files, cpus):
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(text)
    assert cgroups.cpu_limit(cgroups.cgroups("cpu", tmp_path / "membership", tmp_path / "cgroup")) == cpus


def test_this_process_can_be_asked_about_its_own_limits():
    limit = cgroups.memory_limit()
    assert limit is None or limit["bytes"] > 0
    assert all(count >= 0 for count in cgroups.oom_kills().values())
