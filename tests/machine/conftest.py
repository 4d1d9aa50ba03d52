"""Fixtures: a fake GPU, child processes, and fake /proc and /sys trees."""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace

import pytest
from fake_machine import GPU, Child, FakeMachine, load_fake


@pytest.fixture
def nvml(monkeypatch):
    """The fake pynvml; show(...) sets the state of its one GPU and which queries fail."""
    module = load_fake()
    monkeypatch.setitem(sys.modules, "pynvml", module)

    def show(gpu: dict | None = None, **settings) -> None:
        monkeypatch.setenv("FAKE_NVML", json.dumps({"gpus": [{"uuid": GPU.uuid, **(gpu or {})}], **settings}))

    show()
    return SimpleNamespace(module=module, show=show)


@pytest.fixture
def children():
    """Two child processes."""
    processes = [Child(), Child()]
    yield processes
    for child in processes:
        child.end()


@pytest.fixture
def machine(tmp_path, monkeypatch) -> FakeMachine:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    return FakeMachine(tmp_path)
