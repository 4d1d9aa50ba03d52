"""Fixtures: a fake GPU, child processes, and a machine in files."""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace

import pytest
from fake_machine import GPU, Child, FakeMachine, load_fake


@pytest.fixture
def nvml(monkeypatch):
    """The fake pynvml; show(...) sets what its one GPU shows and what fails."""
    module = load_fake()
    monkeypatch.setitem(sys.modules, "pynvml", module)

    def show(gpu: dict | None = None, **settings) -> None:
        monkeypatch.setenv("FAKE_NVML", json.dumps({"gpus": [{"uuid": GPU.uuid, **(gpu or {})}], **settings}))

    show()
    return SimpleNamespace(module=module, show=show)


@pytest.fixture
def children():
    """Two of them."""
    started = [Child(), Child()]
    yield started
    for child in started:
        child.end()


@pytest.fixture
def box(tmp_path, monkeypatch) -> FakeMachine:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    return FakeMachine(tmp_path)
