"""What scripts share."""

from __future__ import annotations

import signal

from running import wait_for

from inference_benchmark.cli import every


def test_a_thread_that_tells_takes_no_signal():
    """Python acts on a signal in its main thread, whichever took it: in the middle of starting a process, too."""
    blocked: list[set] = []
    ended = every(0.001, lambda: blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
    wait_for(lambda: blocked)
    ended.set()
    assert blocked[0] >= {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & blocked[0], "those that start it do"
