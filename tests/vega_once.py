"""Once imported, Vega is bundled once for all pages of a test run. That takes longer than all else on most of them."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from filelock import FileLock

from inference_benchmark.render import page

_bundle, _path = page._vega, Path(os.environ["PRELOADED_FOLDER"], "vega.js")


@cache
def _bundled() -> str:
    with FileLock(_path.with_suffix(".lock")):
        if not _path.exists():
            _path.write_text(_bundle())
    return _path.read_text()


page._vega = _bundled
