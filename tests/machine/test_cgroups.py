"""Limits and out-of-memory kills of cgroups v1 and v2."""

from __future__ import annotations

import pytest

from inference_benchmark.machine import cgroups


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
def test_memory_cgroups_of_both_versions_are_read(tmp_path, membership, files, limit, kills):
    (tmp_path / "membership").write_text(membership)
    root = tmp_path / "cgroup"
    root.mkdir()
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)

    def groups():
        return cgroups.cgroups("memory", tmp_path / "membership", root)

    memory_limit = cgroups.memory_limit(groups())
    assert (memory_limit and memory_limit["bytes"]) == limit
    assert next(iter(cgroups.oom_kills(groups()).values()), None) == kills


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"memory.max": "900", "memory.stat": "anon 250\nfile 600\n"}, 650),
        ({"memory.limit_in_bytes": "700", "memory.stat": "cache 600\nrss 1\ntotal_rss 200\n"}, 500),
        ({"memory.max": "max", "memory.stat": "anon 250\n"}, None),
    ],
    ids=["v2", "v1", "no limit"],
)
def test_what_no_process_holds_is_free_and_files_are_no_process(tmp_path, files, free):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert cgroups.free_memory_bytes([tmp_path]) == free


@pytest.mark.parametrize(
    ("membership", "files", "cpus"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n"}, 1.5),
        ("4:cpu,cpuacct:/x\n0::/\n", {"cpu/x/cpu.cfs_quota_us": "50000\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 0.5),
        ("4:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, None),
    ],
)  # fmt: skip
def test_cpu_limits_of_both_versions_are_read(tmp_path, membership, files, cpus):
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(text)
    assert cgroups.cpu_limit(cgroups.cgroups("cpu", tmp_path / "membership", tmp_path / "cgroup")) == cpus


def test_limits_of_this_process_can_be_read():
    limit = cgroups.memory_limit()
    assert limit is None or limit["bytes"] > 0
    assert all(count >= 0 for count in cgroups.oom_kills().values())
