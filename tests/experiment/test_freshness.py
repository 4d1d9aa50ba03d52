"""Dates of files and whether they can be read, before Snakemake judges by them."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from inference_benchmark.experiment.freshness import date_future_files, not_files


def test_a_file_in_the_future_that_cannot_be_dated_is_named_with_the_remedy(tmp_path, monkeypatch):
    later, now = tmp_path / "folder/later.json", tmp_path / "folder/now.json"
    later.parent.mkdir()
    for path in (later, now):
        path.touch()
    before = now.stat().st_mtime_ns
    os.utime(later, (time.time() + 60, time.time() + 60))
    with monkeypatch.context() as read_only:
        error = OSError(errno.EROFS, "Read-only file system")
        read_only.setattr(os, "utime", lambda *_: (_ for _ in ()).throw(error))
        (line,) = date_future_files([tmp_path, tmp_path / "gone"])
    assert line == f"{later}: is dated in the future (Read-only file system); run: touch {later}"
    assert date_future_files([str(later)]) == []
    assert later.stat().st_mtime <= time.time()
    assert now.stat().st_mtime_ns == before


def test_a_record_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    Path("closed.json").touch(mode=0o000)
    Path("open.json").touch(mode=0o644)
    user = os.geteuid()
    if user == 0:  # root may read everything
        os.setresuid(65534, 65534, 0)
    try:
        problems = not_files(["closed.json", "open.json", "absent.json"])
    finally:
        os.setresuid(user, user, user)
    assert problems == ["closed.json: may not be read; change its mode, or remove it"]
