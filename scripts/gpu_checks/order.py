"""All checks, in the order in which they run."""

from collections.abc import Callable, Sequence
from functools import partial

from gpu_checks import of_cells, of_engines, of_studies
from gpu_checks.runner import Check, Verdict
from gpu_checks.setup import CHECKED, HF, STATIC, Setup
from inference_benchmark import engines
from inference_benchmark.engines import ENGINES

#: What decides most comes first: the time may be up before the end.
_FIRST = ("weights", "forked/hf", "recordings", "timeline/hf", "cells/hf/int8")
#: Besides those named after it, the checks that need hf-static, which compiles for up to a minute per shape.
_COMPILING = ("memory", "tf32", "caches", "capture")


def checks(setup: Setup) -> list[Check]:
    """All checks, in their order."""
    unless_cuda = None if setup.device == "cuda" else "CUDA only"
    unless_two = None if setup.pair or setup.device == "cpu" else "one GPU is visible here"

    def check(kind: str, run: Callable[..., Verdict], limit_s: float, needs=("weights",), skip=None) -> Check:
        return Check(kind, partial(run, setup), limit_s, needs, skip)

    def placed(placement: str, skip: str | None) -> Check:
        run = partial(of_cells.check_placement, placement=placement)
        return check(f"placement/{placement}", run, 120, skip=skip)

    def of_engine(kind: str, run: Callable[..., Verdict], limit_s: float, engine: str, *more: str, skip=None) -> Check:
        needs = ("weights", f"engine/{engine}") if ENGINES[engine].package and kind != "engine" else ("weights",)
        if package := engines.missing_package(engine, *more):
            skip = f"the package {package} is not installed"
        elif setup.device == "cuda" and (lacking := engines.missing_for_gpu(engine, *more)):
            skip = lacking
        return Check("/".join((kind, engine, *more)), partial(run, setup, engine, *more), limit_s, needs, skip)

    def of_each(kind: str, run: Callable[..., Verdict], limit_s: float) -> list[Check]:
        # Every shape that hf-static meets is compiled. On a CPU that would take longer than all other checks.
        skips = {STATIC: unless_cuda}
        return [of_engine(kind, run, limit_s, engine, skip=skips.get(engine)) for engine in CHECKED]

    def cells(precisions: Sequence[str]) -> list[Check]:
        pairs = [(engine, precision) for precision in precisions for engine in CHECKED]
        known = [(engine, precision) for engine, precision in pairs if precision in ENGINES[engine].precisions]
        return [of_engine("cells", of_cells.check_cells, 180, *pair) for pair in known]

    planned = [
        check("weights", of_cells.check_weights, 180, needs=()),
        *(of_engine("engine", of_cells.check_engine, 120, engine) for engine in CHECKED if ENGINES[engine].package),
        *cells(setup.precisions[:3]),
        *(of_engine("answers", of_cells.check_answers, 120, engine) for engine in CHECKED if engine != HF),
        check("recordings", of_cells.check_recordings, 240),
        *(of_engine("forked", of_cells.check_forked, 120, engine) for engine in CHECKED),
        check("libraries", of_engines.check_libraries, 60, needs=()),
        check("memory", of_cells.check_memory, 120),
        check("tf32", of_cells.check_tf32, 120, skip=unless_cuda),
        check("conditions", of_cells.check_conditions, 60),
        check("energy", of_cells.check_energy, 60),
        check("yardstick", of_cells.check_yardstick, 60, skip=unless_cuda),
        *of_each("rows", of_engines.check_rows, 90),
        *of_each("oom", of_cells.check_oom, 60),
        check("caches", of_engines.check_caches, 90),
        check("capture", of_engines.check_capture, 120, skip=unless_cuda),
        *(placed(each, unless_cuda) for each in ("cpu-offload", "disk-offload")),
        placed("layers", unless_cuda or unless_two),
        placed("tensor", unless_two),
        check("ceilings", of_studies.check_ceilings, 90, needs=()),
        of_engine("timeline", of_studies.check_timeline, 90, HF),
        of_engine("timeline", of_studies.check_timeline, 90, STATIC, skip=unless_cuda),
        *of_each("search", of_studies.check_search, 120),
    ]
    return [*sorted(planned, key=_place), *cells(setup.precisions[3:])]


def _place(check: Check) -> int:
    if check.name in _FIRST:
        return _FIRST.index(check.name)
    return len(_FIRST) + (check.name in _COMPILING or STATIC in check.name.split("/"))
