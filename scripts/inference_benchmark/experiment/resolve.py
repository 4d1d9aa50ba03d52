"""From a configuration without contradictions to the experiment on a machine: its device, packages, models, files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from inference_benchmark import engines
from inference_benchmark.analysis.quality import PROMPT_TOKENS, SCORED_TOKENS, WINDOW_TOKENS
from inference_benchmark.experiment import baselines, environments, possible
from inference_benchmark.experiment import variants as variant_problems
from inference_benchmark.experiment.cells import Measurement, Workload
from inference_benchmark.experiment.config_errors import show
from inference_benchmark.experiment.environments import CURRENT, Lock
from inference_benchmark.experiment.experiment import Experiment
from inference_benchmark.experiment.grid_models import models_of_grid
from inference_benchmark.experiment.variants import GridEngine
from inference_benchmark.machine import hardware, torch_build
from inference_benchmark.models import architecture, texts
from inference_benchmark.models.checkpoint import Checkpoint
from inference_benchmark.models.texts import Text
from inference_benchmark.results.column import TEXT
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

#: Settings of a grid that an experiment has as they are.
_AS_GIVEN = ("max_batch", "max_batch_tolerance_percent", "divergence", "batch_invariance", "timeline_trace")


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
) -> tuple[Experiment | None, Sequence[Checkpoint], Sequence[Lock], Sequence[Text]]:
    """The experiment on this machine, or on the first of several, the checkpoints of its models, the locks of its
    environments and the texts of its quality and prompts; no experiment, and problems with more lines, if there are."""
    try:
        device, on_gpu = _device(config)
    except hardware.GpuError as error:
        problems.append(f"device: {show(config['device'])}: {error}; to measure on the CPU, set device to cpu")
        return None, (), (), ()
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
    if on_gpu:
        problems += variant_problems.too_few_gpus(used, len(hardware.visible(hardware.gpus(), os.environ)))
    # One that a null switches off is left out.
    baseline_paths = {name: _in_project(code, path) for name, path in config["baselines"].items() if path is not None}
    for name, path in baseline_paths.items():
        problems += [f"baselines.{name}: {problem}" for problem in baselines.check(Path(path))]
    if is_current:
        problems += possible.missing_packages(here, listed)
        problems += possible.missing_for_gpu(used, listed) if on_gpu else ()
    problems += possible.lacking_in_locks(device, here or elsewhere, grid, locks)
    if config["machines"] is None:
        problems += possible.missing_compiler(device, used)
    machine = _machine(config, device, problems)
    machines = list(config["machines"] or [machine])
    models, configs, checkpoints = models_of_grid(config, device, machines, uses_torch and is_current, problems)
    unread = list(_unread(models, checkpoints))
    text = _text_of_quality(f"grid.{device}.quality", grid["quality"], configs, unread, code, problems)
    unread += (
        f"{each.name} makes up its times and reads no text; remove {each.name} from the grid, or remove this key"
        for each in used
        if not engines.ENGINES[each.engine].needs_weights
    )
    workloads, of_prompts = _workloads(f"grid.{device}.workloads", grid["workloads"], unread, code, problems)
    if is_current:  # what other transformers have is not known before they are installed
        problems += variant_problems.impossible(device, used, list(configs.values()))
    is_known = uses_torch and listed and len(configs) == len(models)  # else one of them could not be read
    not_together = list(possible.not_together(device, used, listed, configs)) if is_known else []
    impossible = possible.impossible(used, elsewhere, grid, configs)
    problems += not_together or possible.without_cells(device, grid, used, impossible)
    if problems:
        return None, (), (), ()
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
        workloads=tuple(workloads),
        memory_limit_bytes=parse_bytes(grid["memory_limit"]),
        precisions=tuple(dict.fromkeys(precision for _, precision, _ in listed)),
        engine_precisions=grid["precisions"] if isinstance(grid["precisions"], Mapping) else {},
        **{name: tuple(grid[name]) for name in ("engines", "batch_sizes", "timeline")},
        **{name: grid[name] for name in _AS_GIVEN},
        **_how_often(config["measurement"], device),
        mixed_provenance=config["mixed_provenance"],
        baselines=baseline_paths,
        variants=variants,
        impossible=impossible,
        quality={"text": text.name, "text_sha256": text.sha256, "tokens": grid["quality"]["tokens"]} if text else {},
        environments=() if named == [CURRENT] else tuple(environments.of_cell(name, locks) for name in named),
        engine_environments=engine_environments,
    )
    return experiment, checkpoints, tuple(locks.values()), [*filter(None, [text]), *of_prompts]


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


def _unread(models: Sequence[Mapping[str, Any]], checkpoints: Sequence[Checkpoint]) -> Iterator[str]:
    """A line for each model that can read no text. models, checkpoints: as of models_of_grid."""
    folders = {each.fingerprint: each.folder for each in checkpoints if not each.problem}
    for model in models:
        name, folder = model["name"], folders.get(model.get("fingerprint"))
        if "architecture" in model:
            drawn = f"the weights of {name} are drawn from a seed, so it has no tokenizer"
            yield f"{drawn}; remove {name} from the grid, or remove this key"
        elif folder and not texts.has_tokenizer(folder):
            remedy = "save it there, by save_pretrained of AutoTokenizer"
            yield f"the checkpoint of {name} has no tokenizer ({folder}); {remedy}"


def _read_text(where: str, named: str, code: Path, problems: list[str], *length: int) -> Text | None:
    """The text that a configuration names, by texts.read; None, and a problem more, where it cannot be used."""
    try:
        return texts.read(named, Path(_in_project(code, named)), *length)
    except texts.TextError as error:
        problems.append(f"{where}.text: {error}")
        return None


def _text_of_quality(
    where: str,
    wanted: Mapping[str, Any] | None,
    configs: Mapping[str, Any],
    unread: Sequence[str],
    code: Path,
    problems: list[str],
) -> Text | None:
    """The text that quality is measured on; problems with more lines. configs: as of models_of_grid."""
    if wanted is None:
        return None
    problems += [f"{where}: {line}" for line in unread]
    for name, config in configs.items():
        if config and (reason := architecture.too_long(config, PROMPT_TOKENS, SCORED_TOKENS)):
            problems.append(f"{where}: windows of {WINDOW_TOKENS} tokens are too long for model {name}: {reason}")
    return _read_text(where, wanted["text"], code, problems, wanted["tokens"])


def _workloads(
    where: str, wanted: Sequence[Mapping[str, Any]], unread: Sequence[str], code: Path, problems: list[str]
) -> tuple[list[Workload], list[Text]]:
    """(the workloads, the texts of their prompts); problems with more lines."""
    workloads, read = [], []
    for index, each in enumerate(wanted):
        workload, of_text = Workload(each["prompt_tokens"], each["new_tokens"]), f"{where}[{index}]"
        if each.get("prompts") == TEXT:
            problems += [f"{of_text}.prompts: {line}" for line in unread]
            named, length = each.get("text", texts.PYTHON), (texts.TOKENS_FOR_PROMPTS, workload.prompt_tokens)
            if text := _read_text(of_text, named, code, problems, *length):
                read.append(text)
                workload = replace(workload, prompts=text.name, prompts_sha256=text.sha256)
        workloads.append(workload)
    return workloads, read


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
