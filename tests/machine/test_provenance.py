"""Which commit the measuring code is of."""

from __future__ import annotations

import subprocess
from pathlib import Path

from inference_benchmark.machine import provenance


def repository(folder: Path, *files: str) -> str:
    """A repository with these files in its only commit, whose digest is returned."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    git = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e"]
    for arguments in (["init", "-q"], ["add", "--all"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()


def test_the_commit_and_whether_the_code_has_changed(tmp_path):
    commit = repository(tmp_path, "scripts/measure.py", "config.yaml")
    (tmp_path / "config.yaml").write_text("changed")
    assert provenance.git(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "scripts/measure.py").write_text("changed")
    assert provenance.git(tmp_path) == {"commit": commit, "dirty": True}


def test_code_that_was_unpacked_inside_another_repository_is_of_no_commit(tmp_path):
    repository(tmp_path, "thesis.tex")
    code = tmp_path / "inference-benchmark"
    (code / "scripts").mkdir(parents=True)
    (code / "scripts/measure.py").touch()
    assert provenance.git(code) is None


def test_code_that_another_repository_holds_is_of_its_commit(tmp_path):
    commit = repository(tmp_path, "vendor/scripts/measure.py")
    assert provenance.git(tmp_path / "vendor") == {"commit": commit, "dirty": False}


def test_a_hook_of_another_repository_does_not_change_it(tmp_path, monkeypatch):
    commit = repository(tmp_path / "code", "scripts/measure.py")
    repository(tmp_path / "other", "scripts/measure.py", "more")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    assert provenance.git(tmp_path / "code") == {"commit": commit, "dirty": False}


def test_a_checkout_of_another_user_says_why_there_is_no_commit(tmp_path, monkeypatch):
    repository(tmp_path, "scripts/measure.py")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git has it for tests of its own
    found = provenance.git(tmp_path)
    assert found["commit"] is None
    assert found["unknown"].endswith(f"belongs to another user; git config --global --add safe.directory {tmp_path}")


def test_there_may_be_no_git(tmp_path, monkeypatch):
    repository(tmp_path, "scripts/measure.py")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git(tmp_path) is None
