"""The other processes of a model that is split, with engines that compute nothing: how all end when one ends."""

from __future__ import annotations

import json
import os
import signal

import pytest
from preloaded import HANGS_S
from running import PROGRAMS, fault

#: A first process with others. What it would send to its parent is printed.
FIRST = """
import json, sys, time
import numpy
from inference_benchmark.worker.engine_session import EngineSession
from inference_benchmark.worker.peers import Peers
session = EngineSession(lambda **facts: print(json.dumps(facts), flush=True), ())
session.phase, session.precision = "measure", "fp32"
peers = Peers(session, "fake", {"placement": "tensor", "gpus": int(sys.argv[1])})
with peers.doing("start", "cpu", 1, None):
    pass
with peers.doing("load", None, "fp32"):
    pass
"""
#: It waits for what the others compute, as NCCL would.
WAITING = f"""
with peers.doing("generate", numpy.zeros((1, 1), int), 2):
    time.sleep({HANGS_S})
"""


def first(code: str, gpus: int = 2, **behaviour) -> tuple[int, list, str]:
    """(exit status, what the first process printed as JSON, what all printed as errors)."""
    environ = {**os.environ, "FAKE_ENGINE": fault(**behaviour)}
    done = PROGRAMS.run(["-c", FIRST + code, str(gpus)], environ=environ)
    return done.returncode, list(map(json.loads, done.stdout.splitlines())), done.stderr


@pytest.mark.parametrize(
    ("what", "end"),
    [
        ("oom", {"outcome": "oom", "exception_type": "inference_benchmark.engines.fake.FakeMemoryError"}),
        ("error", {"outcome": "error", "exception_type": "ValueError", "of_the_machine": False}),
        ("io-error", {"outcome": "error", "exception_type": "OSError", "of_the_machine": True}),
    ],
)
def test_an_exception_in_one_process_ends_all(what, end):
    status, (facts,), _ = first(WAITING, fault=what)
    found = facts["end"]
    assert status == 1
    assert {name: found[name] for name in end} == end
    assert found["message"].startswith("process 2 of 2: made-up ")


@pytest.mark.parametrize(("what", "number"), [("kill", signal.SIGKILL), ("abort-silently", signal.SIGABRT)])
def test_the_signal_that_ends_one_process_ends_the_first(what, number):
    status, sent, _ = first(WAITING, fault=what)
    assert (status, sent) == (-number, [{"peer": "process 2 of 2"}])


def test_a_library_that_ends_one_process_ends_the_first():
    status, sent, printed = first(WAITING, fault="bitsandbytes")
    assert (status, sent) == (1, [{"peer": "process 2 of 2"}])
    assert "Error out of memory at line 82" in printed, "so that the parent sees what it means"


def test_they_do_what_they_are_told_and_end_when_they_are_told_to():
    code = """
with peers.doing("reset_peak_memory"), peers.doing("no method, and a part of the other"):
    pass
print(json.dumps([each["parameters"] for each in peers.ask("describe")]))
peers.close()
print(json.dumps([watch.is_alive() for watch in peers._watches]))
with peers.doing("nothing, for they have ended"):
    print(json.dumps(peers.ask("describe")))
"""
    assert first(code, gpus=3) == (0, [[0, 0], [False, False], []], "")


def test_nothing_is_asked_of_those_who_wait_for_a_process_that_had_an_exception():
    code = """
try:
    with peers.doing("reset_peak_memory"):
        raise KeyError
except KeyError:
    print(json.dumps(peers.ask("describe")))
try:
    with peers.doing("reset_peak_memory"):
        pass
except RuntimeError as error:
    print(json.dumps(str(error)))
"""
    said = "this process had an exception, and the others wait for it"
    assert first(code) == (0, [[], said], "")
