"""What of a grid is impossible with this machine, its packages, the locks and the models: problems, one line each."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from inference_benchmark import engines
from inference_benchmark.experiment import variants
from inference_benchmark.experiment.config_errors import listing
from inference_benchmark.experiment.environments import CURRENT, Lock
from inference_benchmark.experiment.variants import GridEngine, GridPrecision
from inference_benchmark.machine import compiler, hardware
from inference_benchmark.machine.packages import Package
from inference_benchmark.models import architecture, families


def missing_packages(used: Sequence[GridEngine], listed: Sequence[GridPrecision]) -> Iterator[str]:
    """What engines, options and precisions need and is not installed here."""
    if not families.names():  # what measures is not installed here at all: jobs run elsewhere
        return
    missing = [(each.where, each.name, engines.missing_package(each.engine, options=each.options)) for each in used]
    complete = {each.name: each.engine for each in used if engines.missing_package(each.engine) is None}
    for where, precision, names in listed:
        of = (complete[name] for name in names if name in complete)
        missing += [(where, precision, engines.missing_package(engine, precision)) for engine in of]
    for where, name, package in dict.fromkeys(missing):
        if package:
            remedy = f"pip install {package.install}"
            yield f"{where}: {name} needs the package {package}, which is not installed here; {remedy}"


def missing_for_gpu(used: Sequence[GridEngine], listed: Sequence[GridPrecision]) -> Iterator[str]:
    """What engines and precisions need to run on a GPU and do not find here."""
    for each in used:
        if lacking := engines.missing_for_gpu(each.engine):
            yield f"{each.where}: {each.name} cannot run on this GPU: {lacking}, or remove {each.name}"
    runnable = {each.name: each.engine for each in used if not engines.missing_for_gpu(each.engine)}
    for where, precision, names in listed:
        of = (runnable[name] for name in names if name in runnable)
        if lacking := next(filter(None, (engines.missing_for_gpu(engine, precision) for engine in of)), None):
            yield f"{where}: {precision} cannot run on this GPU: {lacking}, or remove {precision}"


def not_together(
    device: str,
    used: Sequence[GridEngine],
    listed: Sequence[GridPrecision],
    configs: Mapping[str, Mapping[str, Any] | None],
) -> Iterator[str]:
    """Models that the grid has no precision for, and precisions that it has no model for. configs: of the models, by
    name; None where it is not known yet. A precision that only some of the models have is n/a for the others."""
    reasons = {
        (name, precision): config and architecture.not_in(config, precision)
        for name, config in configs.items()
        for _, precision, _ in listed
    }
    lacking = [name for name in configs if all(reasons[name, precision] for _, precision, _ in listed)]
    of_engines = dict.fromkeys(precision for each in used for precision in engines.ENGINES[each.engine].precisions)
    others = listing(precision for precision in of_engines if precision not in architecture.QUANTISED)
    for name in lacking:
        allowed = architecture.quantisation(configs[name]) or others
        where, reason = f"grid.{device}.precisions", reasons[name, listed[0][1]]
        yield f"{where}: none is possible for model {name}: {reason}; allowed: {allowed}"
    for where, precision, _ in () if lacking else listed:
        if configs and all(reasons[name, precision] for name in configs):
            why = "; ".join(f"{name}: {reasons[name, precision]}" for name in configs)
            yield f"{where}: no model of the grid can be {precision} ({why}); remove it"


def impossible(
    used: Sequence[GridEngine],
    elsewhere: Sequence[GridEngine],
    grid: Mapping[str, Any],
    configs: Mapping[str, Mapping[str, Any] | None],
) -> tuple[Mapping[str, str], ...]:
    """As Experiment.impossible. elsewhere: the engines that have an environment of their own. configs: of the models,
    by name; None where it is not known yet."""
    found = []
    for (name, config), each in product(configs.items(), used):
        # What the transformers of other environments have is not known here.
        is_here = grid["environments"] == [CURRENT] and each not in elsewhere
        for precision in each.precisions:
            reason = engines.impossible(each.engine, precision, config, each.options)
            if reason := reason or (variants.lacking(each, config) if is_here else None):
                found.append({"model": name, "engine": each.name, "precision": precision, "reason": reason})
    return tuple(found)


def without_cells(
    device: str, grid: Mapping[str, Any], used: Sequence[GridEngine], impossible: Sequence[Mapping[str, str]]
) -> Iterator[str]:
    """Models for which everything is impossible."""
    for index, name in enumerate(grid["models"]):
        reasons = [each["reason"] for each in impossible if each["model"] == name]
        if reasons and len(reasons) == sum(len(each.precisions) for each in used):
            where = f"grid.{device}.models[{index}]"
            yield f"{where}: the grid has nothing for {name}: {'; '.join(dict.fromkeys(reasons))}; remove it"


def lacking_in_locks(
    device: str, used: Sequence[GridEngine], grid: Mapping[str, Any], locks: Mapping[str, Lock]
) -> Iterator[str]:
    """What the lock files of environments do not name. locks: by the name of the environment."""
    needed = {Package("nvidia_ml_py"): "energy on a GPU"} if device == "cuda" else {}
    for each, precision in ((engine, precision) for engine in used for precision in engine.precisions):
        for package, what in engines.needed_packages(each.engine, precision, each.options).items():
            needed.setdefault(package, each.name if what == each.engine else f"{what} in {each.name}")
    for name, (package, what) in product(grid["environments"], needed.items()):
        if name in locks and not package.is_in(locks[name].packages):
            missing = package.distribution
            yield f"environments.{name}: its file has no {missing}, which {what} needs; add {missing}==VERSION"


def missing_compiler(device: str, used: Sequence[GridEngine]) -> Iterator[str]:
    """Where cells are measured elsewhere, a compiler that is missing here says nothing."""
    compiling = [each for each in used if each.compiles]
    lacking = compiler.missing(device) if compiling else None
    if lacking is None or not families.installed() or (device == "cuda" and hardware.detect_device() == "cpu"):
        return
    for each in compiling:
        yield f"{each.where}: {each.name} compiles the model, and {lacking}, or remove {each.name}"
