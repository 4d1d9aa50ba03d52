"""From a configuration without contradictions to the experiment on a machine: its device, packages, models, files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

from inference_benchmark import engines, files
from inference_benchmark.analysis.quality import PROMPT_TOKENS, SCORED_TOKENS, WINDOW_TOKENS
from inference_benchmark.experiment import baselines, environments
from inference_benchmark.experiment import variants as variant_problems
from inference_benchmark.experiment.cells import Measurement, Workload
from inference_benchmark.experiment.config_errors import listing, show
from inference_benchmark.experiment.environments import CURRENT, Lock
from inference_benchmark.experiment.experiment import Experiment
from inference_benchmark.experiment.variants import GridEngine, GridPrecision
from inference_benchmark.machine import compiler, hardware, torch_build
from inference_benchmark.machine.packages import Package
from inference_benchmark.models import architecture, families, texts
from inference_benchmark.models.checkpoint import Checkpoint, CheckpointError, fingerprint, look_into, weights_files
from inference_benchmark.models.texts import Text
from inference_benchmark.units import parse_bytes

#: Settings of measurement that a configuration leaves to the device (null). Processes on a CPU differ by several
#: percent, more than the calls of each: many short rounds say more than a few long ones. A quiet machine needs three
#: for ±10 %; where rounds scatter by 14 %, as on a shared virtual machine, six give ±12 % in twice the time, and ten
#: would give ±9 %. On a GPU a round has room for seven calls of 1.4 s, as a model of a billion parameters takes for 100
#: tokens: enough for ±1 % where calls scatter by 1 %.
_BY_DEVICE = {
    "cpu": {
        "rounds": {"least": 3, "most": 6}, "warmup_tolerance_percent": 10, "target_half_width_percent": 10,
        "min_seconds": 0.5, "max_seconds": 0.5, "long_call_seconds": 0,
    },
    "cuda": {
        "rounds": {"least": 1, "most": 5}, "warmup_tolerance_percent": 5, "target_half_width_percent": 1,
        "min_seconds": 1, "max_seconds": 10, "long_call_seconds": 15,
    },
}  # fmt: skip


def _read_locks(
    config: Mapping[str, Any], code: Path, device: str, elsewhere: Sequence[GridEngine], problems: list[str]
) -> dict[str, Lock]:
    """The lock files of all environments by name, those of engines that have one of their own by the engine; problems
    with more lines."""
    files = {name: Path(_in_project(code, path)) for name, path in config["environments"].items()}
    files |= {each.engine: code / "envs" / engines.ENGINES[each.engine].locks[device] for each in elsewhere}
    found = {name: environments.read(path) for name, path in files.items()}
    problems += [f"environments.{name}: {problem}" for name, (_, wrong) in found.items() for problem in wrong]
    return {name: lock for name, (lock, _) in found.items() if lock}


def resolve(
    config: Mapping[str, Any], code: Path, problems: list[str]
) -> tuple[Experiment | None, Sequence[Checkpoint], Sequence[Lock], Text | None]:
    """The experiment on this machine, or on the first of several, the checkpoints of its models, the locks of its
    environments and the text of its quality; no experiment, and problems with more lines, if there are."""
    try:
        device, on_gpu = _device(config)
    except hardware.GpuError as error:
        problems.append(f"device: {show(config['device'])}: {error}; to measure on the CPU, set device to cpu")
        return None, (), (), None
    grid = config["grid"][device]
    variants = {name: config["engines"][name] for name in grid["engines"] if name in config["engines"]}
    used, listed = variant_problems.of_grid(device, grid, variants), variant_problems.precisions_of(device, grid)
    elsewhere = [each for each in used if device in engines.ENGINES[each.engine].locks]
    here = [each for each in used if each not in elsewhere]
    locks = _read_locks(config, code, device, elsewhere, problems)
    uses_torch = any(engines.ENGINES[each.engine].needs_weights for each in used)
    is_current = CURRENT in grid["environments"]
    if on_gpu and uses_torch and is_current and (problem := torch_build.problem(torch_build.torch_build())):
        problems.append(f"device: {show(config['device'])}: {problem}")
    # One that a null switches off is left out.
    baseline_paths = {name: _in_project(code, path) for name, path in config["baselines"].items() if path is not None}
    for name, path in baseline_paths.items():
        problems += [f"baselines.{name}: {problem}" for problem in baselines.check(Path(path))]
    if is_current:
        problems += _missing_packages(here, listed)
        problems += _missing_for_gpu(used, listed) if on_gpu else ()
    problems += _lacking_in_locks(device, here or elsewhere, grid, locks)
    if config["machines"] is None:
        problems += _missing_compiler(device, used)
    machine = _machine(config, device, problems)
    machines = list(config["machines"] or [machine])
    models, configs, checkpoints = _models(config, device, machines, uses_torch and is_current, problems)
    text = _text(device, grid, models, configs, checkpoints, code, problems)
    if is_current:  # what other transformers have is not known before they are installed
        problems += variant_problems.impossible(device, used, list(configs.values()))
    is_known = uses_torch and listed and len(configs) == len(models)  # else one of them could not be read
    not_together = list(_not_together(device, used, listed, configs)) if is_known else []
    impossible = _impossible(used, elsewhere, grid, configs)
    problems += not_together or _without_cells(device, grid, used, impossible)
    if problems:
        return None, (), (), None
    named = grid["environments"]
    engine_environments = {each.name: environments.of_engine(each.engine, named, locks) for each in elsewhere}
    for each in (each for each in elsewhere if not engine_environments[each.name]):
        package = engines.ENGINES[each.engine].package
        problems.append(
            f"{each.where}: no environment of the grid has {package}, which {each.name} needs; add {CURRENT}, where it "
            "has an environment of its own"
        )
    experiment = Experiment(
        machine=machine,
        device=device,
        models=tuple(models),
        workloads=tuple(Workload(**workload) for workload in grid["workloads"]),
        memory_limit_bytes=parse_bytes(grid["memory_limit"]),
        precisions=tuple(dict.fromkeys(precision for _, precision, _ in listed)),
        engine_precisions=grid["precisions"] if isinstance(grid["precisions"], Mapping) else {},
        **{name: tuple(grid[name]) for name in ("engines", "batch_sizes", "timeline")},
        **{name: grid[name] for name in ("max_batch", "max_batch_tolerance_percent", "divergence", "timeline_trace")},
        **_how_often(config["measurement"], device),
        mixed_provenance=config["mixed_provenance"],
        baselines=baseline_paths,
        variants=variants,
        impossible=impossible,
        quality={"text": text.name, "text_sha256": text.sha256, "tokens": grid["quality"]["tokens"]} if text else {},
        environments=() if named == [CURRENT] else tuple(environments.of_cell(name, locks) for name in named),
        engine_environments=engine_environments,
    )
    return experiment, checkpoints, tuple(locks.values()), text


def _machine(config: Mapping[str, Any], device: str, problems: list[str]) -> str:
    """The label of the machine; of the first where there are several."""
    if config["machines"] is not None:
        return next(iter(config["machines"]))
    if config["machine"] == "auto":
        try:
            return hardware.label(device)
        except LookupError as error:
            elsewhere = "or, if jobs run on a machine that has one, machine to its name"
            problems.append(f"device: {show(device)}: {error}; set device to cpu, {elsewhere}")
    return config["machine"]


def _models(
    config: Mapping[str, Any], device: str, machines: Sequence[str], are_loaded: bool, problems: list[str]
) -> tuple[list[dict[str, Any]], dict[str, Any], list[Checkpoint]]:
    """(the models of the grid as in Cell.model, their transformers configurations by name, the checkpoints among them).
    A configuration is None if it is on the hub, or gone with its weights, and missing if it could not be read.
    are_loaded: whether an engine loads their weights here."""
    grid = config["grid"][device]
    models, configs, checkpoints = [], {}, []
    for name in (name for name in grid["models"] if name in config["models"]):
        model = {"name": name, **config["models"][name]}
        if "architecture" in model:
            model.setdefault("seed", 0)
        models.append(model)
        config_json = model.get("architecture")
        try:
            if "checkpoint" in model:
                folder = Path(os.path.expanduser(model.pop("checkpoint")))
                found, config_json = _checkpoint(folder, name, machines, are_loaded)
                checkpoints.append(found)
                model["fingerprint"] = found.fingerprint
            configs[name] = config_json
            if config_json:
                problems += _too_long(device, grid, name, config_json)
        except CheckpointError as error:
            problems.append(f"models.{name}.checkpoint: {error}")
    return models, configs, checkpoints


def _checkpoint(
    folder: Path, name: str, machines: Sequence[str], is_loaded: bool
) -> tuple[Checkpoint, dict[str, Any] | None]:
    """The checkpoint in a folder, with its config.json. If its weights are gone, it is that of the newest record of the
    model: they are needed to measure, not to read records. Raises CheckpointError."""
    whole = Path(os.path.abspath(folder))
    try:
        config_json = look_into(folder, is_loaded)
        return Checkpoint(fingerprint(folder), whole), config_json
    except CheckpointError as error:
        known = None if weights_files(folder) else _measured_fingerprint(name, machines)
        if known is None:
            raise
        return Checkpoint(known, whole, f"models.{name}.checkpoint: {error}"), None


def _measured_fingerprint(name: str, machines: Sequence[str]) -> str | None:
    """The fingerprint of a model's weights in the newest of its records."""
    found = {}
    for path in (path for machine in machines for path in baselines.records_below(Path("results", machine))):
        if name in path.parts:
            with suppress(OSError, ValueError, LookupError, TypeError):
                record = files.read_json(path)
                if (model := record["cell"]["model"])["name"] == name:
                    found[str(record["ended_at"])] = str(model["fingerprint"])
    return found[max(found)] if found else None


def _text(
    device: str,
    grid: Mapping[str, Any],
    models: Sequence[Mapping[str, Any]],
    configs: Mapping[str, Any],
    checkpoints: Sequence[Checkpoint],
    code: Path,
    problems: list[str],
) -> Text | None:
    """The text that quality is measured on; problems with more lines, also for each model that can read no text.
    models, configs, checkpoints: as of _models."""
    if (wanted := grid["quality"]) is None:
        return None
    where = f"grid.{device}.quality"
    folders = {each.fingerprint: each.folder for each in checkpoints if not each.problem}
    for model in models:
        name, folder = model["name"], folders.get(model.get("fingerprint"))
        if "architecture" in model:
            problems.append(
                f"{where}: the weights of {name} are drawn from a seed, so it predicts no text; remove {name} from the "
                "grid, or set quality to null (divergence compares its answers)"
            )
        elif folder and not texts.has_tokenizer(folder):
            remedy = "save it there, by save_pretrained of AutoTokenizer"
            problems.append(f"{where}: the checkpoint of {name} has no tokenizer ({folder}); {remedy}")
        elif (config := configs.get(name)) and (reason := architecture.too_long(config, PROMPT_TOKENS, SCORED_TOKENS)):
            problems.append(f"{where}: windows of {WINDOW_TOKENS} tokens are too long for model {name}: {reason}")
    try:
        return texts.read(wanted["text"], Path(_in_project(code, wanted["text"])), wanted["tokens"])
    except texts.TextError as error:
        problems.append(f"{where}.text: {error}")
        return None


def _how_often(settings: Mapping[str, Any], device: str) -> dict[str, Any]:
    """``measurement``, ``rounds`` and ``most_rounds`` of the experiment."""
    suits, least, most = dict(_BY_DEVICE[device]), settings["min_seconds"], settings["max_seconds"]
    if least is not None:
        suits["max_seconds"] = max(least, suits["max_seconds"])
    if most is not None:
        suits["min_seconds"] = min(most, suits["min_seconds"])
    each_round = {name: suits.get(name) if value is None else value for name, value in settings.items()}
    rounds = each_round.pop("rounds")
    least, most = (rounds["least"], rounds["most"]) if isinstance(rounds, Mapping) else (rounds, rounds)
    most_rounds = most if most > least else None
    return {"rounds": least, "most_rounds": most_rounds, "measurement": Measurement(**each_round)}


def _device(config: Mapping[str, Any]) -> tuple[str, bool]:
    """The device to measure on, and whether it is a GPU of this machine. Raises hardware.GpuError."""
    if config["device"] == "auto":
        device = hardware.detect_device()
        return device, device == "cuda"
    may_be_here = config["device"] == "cuda" and config["machines"] is None  # else jobs run elsewhere
    return config["device"], may_be_here and bool(hardware.visible(hardware.gpus(), os.environ))


def history(config: Mapping[str, Any], code: Path, problems: list[str]) -> tuple[str, ...]:
    """The results of earlier runs, looked for like baselines; problems with more lines."""
    paths = tuple(_in_project(code, path) for path in config["history"])
    for index, path in enumerate(map(Path, paths)):
        found = baselines.check(path)
        is_dated = path.name == "summary.csv" and path.with_name("provenance.json").exists()
        if not found and path.is_file() and not is_dated:
            found = [f"{path} is not a summary.csv with a provenance.json beside it, so its date is unknown; keep both"]
        problems += [f"history[{index}]: {problem}" for problem in found]
    return paths


def _in_project(code: Path, path: str) -> str:
    """A path in the working directory or, after ~, a home, else in the project."""
    path = os.path.expanduser(path)
    # os.path, because Path.exists raises OSError for a name that is too long.
    return str(code / path) if not os.path.exists(path) and os.path.exists(code / path) else path


def _missing_packages(used: Sequence[GridEngine], listed: Sequence[GridPrecision]) -> Iterator[str]:
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


def _missing_for_gpu(used: Sequence[GridEngine], listed: Sequence[GridPrecision]) -> Iterator[str]:
    for each in used:
        if lacking := engines.missing_for_gpu(each.engine):
            yield f"{each.where}: {each.name} cannot run on this GPU: {lacking}, or remove {each.name}"
    runnable = {each.name: each.engine for each in used if not engines.missing_for_gpu(each.engine)}
    for where, precision, names in listed:
        of = (runnable[name] for name in names if name in runnable)
        if lacking := next(filter(None, (engines.missing_for_gpu(engine, precision) for engine in of)), None):
            yield f"{where}: {precision} cannot run on this GPU: {lacking}, or remove {precision}"


def _not_together(
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


def _impossible(
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
            reason = engines.impossible(each.engine, precision, config)
            if reason := reason or (variant_problems.lacking(each, config) if is_here else None):
                found.append({"model": name, "engine": each.name, "precision": precision, "reason": reason})
    return tuple(found)


def _without_cells(
    device: str, grid: Mapping[str, Any], used: Sequence[GridEngine], impossible: Sequence[Mapping[str, str]]
) -> Iterator[str]:
    """Models for which everything is impossible."""
    for index, name in enumerate(grid["models"]):
        reasons = [each["reason"] for each in impossible if each["model"] == name]
        if reasons and len(reasons) == sum(len(each.precisions) for each in used):
            where = f"grid.{device}.models[{index}]"
            yield f"{where}: the grid has nothing for {name}: {'; '.join(dict.fromkeys(reasons))}; remove it"


def _lacking_in_locks(
    device: str, used: Sequence[GridEngine], grid: Mapping[str, Any], locks: Mapping[str, Lock]
) -> Iterator[str]:
    needed = {Package("nvidia_ml_py"): "energy on a GPU"} if device == "cuda" else {}
    for each, precision in ((engine, precision) for engine in used for precision in engine.precisions):
        for package, what in engines.needed_packages(each.engine, precision, each.options).items():
            needed.setdefault(package, each.name if what == each.engine else f"{what} in {each.name}")
    for name, (package, what) in product(grid["environments"], needed.items()):
        if name in locks and not package.is_in(locks[name].packages):
            missing = package.distribution
            yield f"environments.{name}: its file has no {missing}, which {what} needs; add {missing}==VERSION"


def _missing_compiler(device: str, used: Sequence[GridEngine]) -> Iterator[str]:
    """Where cells are measured elsewhere, a compiler that is missing here says nothing."""
    compiling = [each for each in used if each.compiles]
    lacking = compiler.missing(device) if compiling else None
    if lacking is None or not families.installed() or (device == "cuda" and hardware.detect_device() == "cpu"):
        return
    for each in compiling:
        yield f"{each.where}: {each.name} compiles the model, and {lacking}, or remove {each.name}"


def _too_long(device: str, grid: Mapping[str, Any], name: str, config_json: Mapping[str, Any]) -> Iterator[str]:
    for index, workload in enumerate(grid["workloads"]):
        if reason := architecture.too_long(config_json, **workload):
            yield f"grid.{device}.workloads[{index}]: too long for model {name}: {reason}"
