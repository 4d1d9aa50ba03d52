"""Once imported, Vega is bundled once for all pages of a test run, and charts of the same data are drawn once. That takes
longer than all else on most pages."""

from __future__ import annotations

import hashlib
import json
import marshal
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from inference_benchmark import files
from inference_benchmark.render import page, vega

_bundle, _draw, _folder = page._vega, vega.drawn, Path(os.environ["PRELOADED_FOLDER"], "vega")


def _once(make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What make() returns, kept for all processes of the test run."""
    digest = hashlib.sha256(json.dumps([make.__name__, arguments, options]).encode()).hexdigest()
    _folder.mkdir(exist_ok=True)
    with FileLock((made := _folder / digest).with_suffix(".lock")):
        if not made.exists():
            files.write(marshal.dumps(make(*arguments, **options)), made)
    return marshal.loads(made.read_bytes())


page._vega = cache(lambda: _once(_bundle))
vega.drawn = lambda spec, form, **options: _once(_draw, spec, form, **options)
