"""Every wrong key, value, duplicate and contradiction is named before any job starts, all at once."""

from __future__ import annotations

import copy
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import quantised
import yaml
from fake_machine import GPU
from made_up import MODELS
from running import PUBLISHED, REPO, drawn

from inference_benchmark import engines
from inference_benchmark.engines.options import OPTIONS
from inference_benchmark.experiment.cells import Workload
from inference_benchmark.experiment.config import load
from inference_benchmark.experiment.config_errors import ConfigError
from inference_benchmark.experiment.defaults import resolved, with_defaults
from inference_benchmark.experiment.experiment import Experiment
from inference_benchmark.experiment.variants import with_names
from inference_benchmark.machine import compiler, hardware, packages, torch_build
from inference_benchmark.models import families

SCHEMA = yaml.safe_load((REPO / "config.schema.yaml").read_text())
CONFIG = yaml.safe_load((REPO / "config.yaml").read_text())


def problems(change, files=()) -> list[str]:
    """What is said of the default configuration after a change."""
    config = copy.deepcopy(CONFIG)
    change(config)
    with pytest.raises(ConfigError) as caught:
        load(config, SCHEMA, files)
    return caught.value.problems


def put(*path_and_value):
    *path, key, value = path_and_value

    def change(config):
        for part in path:
            config = config.setdefault(part, {})
        config[key] = value

    return change


def test_the_default_is_valid_for_both_devices():
    config = copy.deepcopy(CONFIG)
    (cuda,) = load(config | {"device": "cuda", "machine": "h200"}, SCHEMA, [REPO / "config.yaml"]).experiments
    assert [m["name"] for m in cuda.models] == ["bloom-1b3"]
    assert cuda.precisions == ("fp32", "bf16", "int8")
    assert cuda.batch_sizes == (1, 2, 4, 8, 16, 32, 64, *range(128, 1921, 128))
    assert cuda.workloads == (Workload(prompt_tokens=9, new_tokens=100),)
    assert cuda.engines == ("hf", "hf-static")
    assert len(list(cuda.cells())) == 2 * 66 - 22, "hf-static has no int8"
    (cpu,) = load(config | {"device": "cpu"}, SCHEMA).experiments
    assert (cpu.memory_limit_bytes, cpu.rounds, cpu.most_rounds) == (700_000_000, 3, 6)


def test_the_grid_of_all_engines_has_all_of_them_but_for_a_family_that_one_does_not_have():
    config = yaml.safe_load((REPO / "docs/engines.yaml").read_text())
    (cpu,) = load(config, SCHEMA, [REPO / "docs/engines.yaml"]).experiments
    assert {*cpu.engines, "fake"} == {*engines.ENGINES}
    every = {(engine, model["name"]) for engine in cpu.engines for model in cpu.models}
    (lacking,) = every - {(cell.engine, cell.model["name"]) for cell in cpu.cells()}
    assert lacking == ("hf-continuous", "bloom-51m")
    for each in cpu.impossible:
        assert (each["engine"], each["model"]) == lacking
        assert each["reason"].startswith("hf-continuous has no bloom here, only gemma, gemma2, ")


def test_config_yaml_shows_the_defaults():
    assert with_defaults({}, SCHEMA) == CONFIG
    assert load({}, SCHEMA) == load(CONFIG, SCHEMA)


def test_every_key_has_a_default():
    """But those of a model and a workload, of which a configuration names its own, and those inside of what is null."""

    def check(sub: dict, value: dict | None) -> None:
        for key, part in resolved(sub, SCHEMA).get("properties", {}).items() if value is not None else ():
            assert key in value
            check(part, value[key])

    config = with_defaults({"machines": {"a100": {}}}, SCHEMA)
    check(SCHEMA, config)
    check(SCHEMA["properties"]["machines"]["additionalProperties"], config["machines"]["a100"])


def test_a_configuration_holds_only_what_differs():
    config = with_defaults(
        {"models": {"mine": {"hub": "a/b"}, "bloom-51m": {"checkpoint": "c"}}, "grid": {"cpu": {"batch_sizes": [3]}}},
        SCHEMA,
    )
    assert config["models"] == {
        "bloom-1b3": CONFIG["models"]["bloom-1b3"], "bloom-51m": {"checkpoint": "c"}, "mine": {"hub": "a/b"},
    }  # fmt: skip
    assert config["grid"] == {"cuda": CONFIG["grid"]["cuda"], "cpu": CONFIG["grid"]["cpu"] | {"batch_sizes": [3]}}
    assert {key: config[key] for key in config.keys() - {"models", "grid"}} == {
        key: CONFIG[key] for key in CONFIG.keys() - {"models", "grid"}
    }


def test_what_a_measurement_leaves_open_suits_the_device(monkeypatch):
    monkeypatch.setattr(hardware, "visible", lambda *_: [])
    monkeypatch.setattr(hardware, "gpus", lambda: [])

    def how_often(device, **settings):
        config = {"device": device, "machine": "box", "measurement": settings}
        experiment = load(config, SCHEMA, code=REPO).experiments[0]
        each = experiment.measurement
        seconds = each.min_seconds, each.max_seconds, each.long_call_seconds
        rounds = experiment.rounds, experiment.most_rounds
        return *rounds, each.warmup_tolerance_percent, each.target_half_width_percent, *seconds

    assert (how_often("cpu"), how_often("cuda")) == ((3, 6, 10, 10, 0.5, 0.5, 0), (1, 5, 5, 1, 1, 10, 15))
    assert how_often("cpu", min_seconds=5) == (3, 6, 10, 10, 5, 5, 0)
    assert how_often("cuda", min_seconds=5) == (1, 5, 5, 1, 5, 10, 15)
    assert how_often("cpu", max_seconds=0.1) == (3, 6, 10, 10, 0.1, 0.1, 0)
    assert how_often("cuda", max_seconds=5) == (1, 5, 5, 1, 1, 5, 15)
    given = {
        "rounds": 2,
        "warmup_tolerance_percent": 1,
        "target_half_width_percent": 3,
        "max_seconds": 4,
        "long_call_seconds": 9,
    }
    for device in ("cpu", "cuda"):
        assert how_often(device, min_seconds=2, **given) == (2, None, 1, 3, 2, 4, 9)
    assert how_often("cpu", rounds={"least": 2, "most": 5})[:2] == (2, 5)
    assert how_often("cpu", rounds={"least": 4, "most": 4})[:2] == (4, None), "as the number 4"


def test_the_schema_allows_the_engines_and_precisions_that_there_are():
    schema = with_names(SCHEMA)
    grid = schema["$defs"]["grid"]["properties"]
    variant = schema["properties"]["engines"]["additionalProperties"]["properties"]
    assert variant["engine"]["enum"] == list(engines.ENGINES)
    chosen = {name: tuple(sub["enum"]) for name, sub in variant.items() if name != "engine"}
    assert chosen == {name: option.values for name, option in OPTIONS.items()}
    precisions = dict.fromkeys(name for engine in engines.ENGINES.values() for name in engine.precisions)
    assert grid["precisions"]["items"]["enum"] == list(precisions)
    assert grid["precisions"]["additionalProperties"]["items"]["enum"] == list(precisions)


def test_each_engine_may_have_precisions_of_its_own():
    config = copy.deepcopy(CONFIG) | {"device": "cpu"}
    grid = {"batch_sizes": [1], "precisions": {"ctranslate2": ["int8"], "hf": ["bf16", "fp32"]}}
    config["grid"]["cpu"] |= grid
    (experiment,) = load(config, SCHEMA).experiments
    columns = [("hf", "bf16"), ("hf", "fp32"), ("ctranslate2", "int8")]
    assert [(cell.engine, cell.precision) for cell in replace(experiment, rounds=1).cells()] == columns
    assert Experiment.from_json(experiment.to_json()) == experiment
    alike = replace(experiment, precisions=("bf16", "fp32", "int8"), engine_precisions={})
    assert {cell.to_json() for cell in experiment.cells()} < {cell.to_json() for cell in alike.cells()}
    assert "engine_precisions" not in alike.to_json()


def test_a_baseline_that_is_not_in_the_working_directory_is_looked_for_in_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (experiment,) = load({"device": "cpu"}, SCHEMA, code=REPO).experiments
    assert experiment.baselines == {"a100-80gb": str(PUBLISHED)}
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / PUBLISHED.name).write_text(PUBLISHED.read_text())
    (experiment,) = load({"device": "cpu"}, SCHEMA, code=REPO).experiments
    assert experiment.baselines == {"a100-80gb": f"reference/{PUBLISHED.name}"}


def test_a_tilde_in_a_path_is_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))

    def change(config):
        put("device", "cpu")(config)
        put("models", "mine", {"checkpoint": "~/weights"})(config)
        put("grid", "cpu", "models", ["mine"])(config)
        put("environments", "old", "~/old.lock")(config)
        put("grid", "cpu", "environments", ["current", "old"])(config)
        put("baselines", {"theirs": "~/theirs.csv"})(config)
        put("history", ["~/earlier"])(config)

    lines = problems(change)
    for name in ("weights", "old.lock", "theirs.csv", "earlier"):
        assert sum(f"{tmp_path}/{name}" in line for line in lines) == 1, lines


def test_results_of_earlier_runs_that_cannot_be_used_are_named_before_any_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/summary.csv").write_text(PUBLISHED.read_text())
    config = {"device": "cpu", "history": ["gone", "kept", "kept/summary.csv"]}
    with pytest.raises(ConfigError) as caught:
        load(config, SCHEMA, code=REPO)
    assert caught.value.problems == [
        "history[0]: gone: No such file or directory",
        "history[1]: kept holds no records (batch-N.json)",
        "history[2]: kept/summary.csv is not a summary.csv with a provenance.json beside it, so its date is unknown; keep both",
    ]
    (tmp_path / "kept/provenance.json").touch()
    assert load(config | {"history": ["kept/summary.csv"]}, SCHEMA, code=REPO).history == ("kept/summary.csv",)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (put("machnie", "x"), "machnie: unknown key; allowed: machine, machines, device, models, engines, environments, grid, measurement, watch, mixed_provenance, baselines, history; did you mean machine?"),
        (put("device", "cud"), 'device: "cud" is not allowed; allowed: auto, cuda, cpu; did you mean cuda?'),
        (put("machine", "../up"), 'machine: "../up" is not allowed; allowed: text like ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
        (put("measurement", "min_cycles", 1), "measurement.min_cycles: 1 is not allowed; allowed: an integer >= 2"),
        (put("measurement", "min_cycles", True), "measurement.min_cycles: true is not allowed; allowed: an integer >= 2"),
        (put("measurement", "min_cycles", "3"), 'measurement.min_cycles: "3" is not allowed; allowed: an integer >= 2'),
        (put("measurement", "min_cycles", 3.0), "measurement.min_cycles: 3.0 is not allowed; allowed: an integer >= 2"),
        (put("measurement", "target_half_width_percent", 0), "measurement.target_half_width_percent: 0 is not allowed; allowed: a number > 0 or null"),
        (put("measurement", "min_seconds", -1), "measurement.min_seconds: -1 is not allowed; allowed: a number >= 0 or null"),
        (put("measurement", {"min_seconds": 60, "max_seconds": 2}), "measurement.max_seconds: 2 is less than min_seconds; allowed: 60 or more"),
        (put("measurement", "rounds", 0), "measurement.rounds: 0 is not allowed; allowed: an integer >= 1 or null or a mapping with least, most"),
        (put("measurement", "rounds", "3"), 'measurement.rounds: "3" is not allowed; allowed: an integer >= 1 or null or a mapping with least, most'),
        (put("measurement", "rounds", [3, 10]), "measurement.rounds: [3, 10] is not allowed; allowed: an integer >= 1 or null or a mapping with least, most"),
        (put("measurement", "rounds", {"least": 5, "most": 3}), "measurement.rounds.most: 3 is less than least; allowed: 5 or more"),
        (put("measurement", "rounds", {"least": 0, "most": 3}), "measurement.rounds.least: 0 is not allowed; allowed: an integer >= 1"),
        (put("measurement", "rounds", {"least": 3, "most": "many"}), 'measurement.rounds.most: "many" is not allowed; allowed: an integer >= 1'),
        (put("measurement", "rounds", {"least": 3}), "measurement.rounds.most: missing; allowed: an integer >= 1"),
        (put("measurement", "rounds", {"least": 3, "most": 4, "mots": 5}), "measurement.rounds.mots: unknown key; allowed: least, most; did you mean most?"),
        (put("watch", "exclusive", "Fail"), 'watch.exclusive: "Fail" is not allowed; allowed: warn, fail; did you mean fail?'),
        (put("watch", "timeout_seconds", 0), "watch.timeout_seconds: 0 is not allowed; allowed: a number > 0"),
        (put("mixed_provenance", "merge"), 'mixed_provenance: "merge" is not allowed; allowed: refuse, split'),
        (put("measurement", "threads", 0), "measurement.threads: 0 is not allowed; allowed: an integer >= 1 or null"),
        (put("grid", "cpu", "batch_sizes", [1, 2, 1]), "grid.cpu.batch_sizes: 1 is listed 2 times; keep one"),
        (put("grid", "cpu", "batch_sizes", [1.0]), "grid.cpu.batch_sizes[0]: 1.0 is not allowed; allowed: an integer >= 1"),
        (put("grid", "cpu", "batch_sizes", []), "grid.cpu.batch_sizes: [] is not allowed; allowed: a list, not empty; each an integer >= 1"),
        (put("grid", "cpu", "precisions", "fp32"), 'grid.cpu.precisions: "fp32" is not allowed; allowed: a list or a mapping, not empty; each ' + ", ".join(engines.PRECISIONS)),
        (put("grid", "cpu", "precisions", {}), "grid.cpu.precisions: {} is not allowed; allowed: a list or a mapping, not empty; each " + ", ".join(engines.PRECISIONS)),
        (put("grid", "cpu", "precisions", {"hf": ["fp32"], "ctranslate2": []}), "grid.cpu.precisions.ctranslate2: [] is not allowed; allowed: a list, not empty; each " + ", ".join(engines.PRECISIONS)),
        (put("grid", "cpu", "precisions", {"hf": ["fp32"], "ctranslate2": ["int"]}), 'grid.cpu.precisions.ctranslate2[0]: "int" is not allowed; allowed: ' + ", ".join(engines.PRECISIONS) + "; did you mean int8?"),
        (put("grid", "cpu", "precisions", {"hf": ["fp32"]}), "grid.cpu.precisions.ctranslate2: missing; allowed: a list of fp32, bf16, fp16, int8"),
        (put("grid", "cpu", "precisions", {"hf": ["fp32"], "ctranslat2": ["int8"]}), "grid.cpu.precisions.ctranslat2: is no engine of the grid; allowed: hf, ctranslate2; did you mean ctranslate2?"),
        (put("grid", "cpu", "precisions", {"hf": ["fp32"], "ctranslate2": ["int8", "nf4"]}), "grid.cpu.precisions.ctranslate2[1]: ctranslate2 does not have nf4; remove it, or add an engine that has it: hf, hf-continuous"),
        (put("grid", "cpu", "precisions", ["fp23"]), 'grid.cpu.precisions[0]: "fp23" is not allowed; allowed: ' + ", ".join(engines.PRECISIONS) + "; did you mean fp32?"),
        (put("grid", "cuda", "engines", ["HF"]), 'grid.cuda.engines[0]: "HF" is not allowed; allowed: ' + ", ".join(engines.ENGINES)),
        (put("grid", "cpu", "models", ["bloom-52m"]), 'grid.cpu.models[0]: "bloom-52m" is not under models; allowed: bloom-1b3, bloom-51m; did you mean bloom-51m?'),
        (put("grid", "cpu", "memory_limit", "420"), "grid.cpu.memory_limit: '420' is not a size such as '80 GB' or '1.5 GiB' (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)"),
        (put("grid", "cpu", "workloads", [{"prompt_tokens": 9}]), "grid.cpu.workloads[0].new_tokens: missing; allowed: an integer >= 1"),
        (put("models", "a/b", {"hub": "x", "revision": "y"}), 'models."a/b": "a/b" is not allowed as a name; allowed: text like ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
        (put("models", "m", {}), "models.m: has none of them; allowed: exactly one of architecture, checkpoint, hub"),
        (put("models", "m", {"hub": "a/b", "checkpoint": "c", "revision": "d"}), "models.m: has checkpoint and hub; allowed: exactly one of architecture, checkpoint, hub"),
        (put("models", "m", {"hub": "a/b"}), "models.m.revision: missing; allowed: a commit, tag or branch of a/b"),
        (put("models", "m", {"hub": "a/b", "revision": "x", "seed": 1}), "models.m.seed: 1 has no use without architecture; remove it"),
        (put("models", "bloom-51m", "architecture", "n_heads", 8), "models.bloom-51m.architecture.n_heads: unknown key; bloom has no such size; remove it"),
        (put("models", "bloom-51m", "architecture", "n_layer", "8"), 'models.bloom-51m.architecture.n_layer: "8" is not allowed; allowed: an integer >= 1'),
        (put("models", "bloom-51m", "architecture", "model_type", "blom"), 'models.bloom-51m.architecture.model_type: transformers has no blom; did you mean bloom?'),
        (put("models", "bloom-51m", "architecture", "n_head", 7), "models.bloom-51m.architecture: a width of 512 cannot be split into 7 attention heads; allowed: a divisor of 512"),
        (put("models", "bloom-51m", "architecture", {"model_type": "bloom", "hidden_size": 64, "n_head": 2, "num_hidden_layers": 2, "vocab_size": 300, "num_attention_heads": 4}), "models.bloom-51m.architecture: n_head: 2 and num_attention_heads: 4 are the same size under two names; keep one"),
        (put("models", "bloom-51m", "architecture", {"model_type": "bloom", "n_embed": 64, "n_head": 2, "vocab_size": 300}), "models.bloom-51m.architecture.n_layer: missing; give it, or bloom would silently have 2, transformers' default"),
        (put("models", "m", "architecture", {**MODELS["llama"], "num_key_value_heads": 3}), "models.m.architecture: 4 attention heads cannot share 3 heads of keys and values; allowed: a divisor of 4"),
        (put("models", "m", "architecture", {**MODELS["llama"], "rms_norm_eps": "1e-06"}), 'models.m.architecture.rms_norm_eps: "1e-06" is not allowed; allowed: a number with a decimal point; YAML reads this as text: write 1.0e-06'),
        (put("models", "m", "architecture", {**MODELS["llama"], "rms_norm_eps": 1}), "models.m.architecture.rms_norm_eps: 1 is not allowed; allowed: a number with a decimal point; write 1.0"),
        (put("models", "m", "architecture", {**MODELS["llama"], "attention_bias": "no"}), 'models.m.architecture.attention_bias: "no" is not allowed; allowed: true or false'),
        (put("models", "m", "architecture", {**MODELS["llama"], "intermediate_size": 0}), "models.m.architecture.intermediate_size: 0 is not allowed; allowed: an integer >= 1"),
        (put("models", "m", "architecture", {**MODELS["llama"], "num_key_value_heads": 0}), "models.m.architecture.num_key_value_heads: 0 is not allowed; allowed: an integer >= 1 or null"),
        (put("models", "m", "architecture", {**MODELS["llama"], "quantization_config": {}}), "models.m.architecture.quantization_config: the weights are drawn in fp32 and the precisions of a grid decide; remove it"),
        (put("models", "m", "architecture", {**MODELS["llama"], "hiden_act": "silu"}), "models.m.architecture.hiden_act: unknown key; llama has no such size; did you mean hidden_act?"),
        (put("models", "m", "architecture", {**MODELS["llama"], "model_type": "qwen3", "head_dim": 32, "layer_types": ["full_attention"] * 28}), "models.m.architecture.layer_types: has 28 entries for 4 layers; give one for each layer, or remove it"),
        (put("models", "m", "architecture", {"model_type": "bert"}), "models.m.architecture.model_type: bert is an encoder unless is_decoder is true; allowed: causal language models, such as bloom, gpt2 or llama"),
        (put("models", "m", "architecture", {"model_type": "t5"}), "models.m.architecture.model_type: t5 is an encoder and a decoder; allowed: causal language models, such as bloom, gpt2 or llama"),
        (put("models", "m", "architecture", {"model_type": "vit"}), "models.m.architecture.model_type: vit is not a causal language model; allowed: causal language models, such as bloom, gpt2 or llama"),
        (put("models", "m", "architecture", {"model_type": "gemma3", "text_config": {}}), "models.m.architecture.model_type: gemma3 has parts of unstated sizes (text_config, vision_config); write the keys of its text_config here, with model_type: gemma3_text"),
        (put("models", "m", "architecture", {"model_type": "phi4_multimodal"}), "models.m.architecture.model_type: phi4_multimodal has parts of unstated sizes (audio_config, vision_config); measure it as a checkpoint, or choose another family"),
        (put("grid", "cpu", "engines", ["hf-statc"]), 'grid.cpu.engines[0]: "hf-statc" is not allowed; allowed: ' + ", ".join(engines.ENGINES) + "; did you mean hf-static?"),
        (put("grid", "cpu", "precisions", ["fp32", "int4"]), "grid.cpu.precisions[1]: no engine of the grid has int4; remove it, or add an engine that has it: openvino"),
        (lambda config: config["grid"]["cpu"].update(engines=["hf", "ctranslate2"], precisions=["nf4"]), "grid.cpu.engines[1]: ctranslate2 has no precision of the grid; remove it, or add one that it has: fp32, bf16, fp16, int8"),
        (put("engines", "hf-x", {"attention": "sdpa"}), "engines.hf-x.engine: missing; allowed: " + ", ".join(engines.ENGINES)),
        (put("engines", "hf-x", {"engine": "hf", "attention": "sdap"}), 'engines.hf-x.attention: "sdap" is not allowed; allowed: eager, sdpa, flex, flash; did you mean sdpa?'),
        (put("engines", "hf-x", {"engine": "hf", "compile_mode": "default"}), "engines.hf-x.compile_mode: hf has no such option; allowed: attention, cache, matmul_precision, placement, gpus"),
        (put("engines", "c-x", {"engine": "ctranslate2", "attention": "sdpa"}), "engines.c-x.attention: ctranslate2 has no such option; allowed: none"),
        (put("engines", "hf-x", {"engine": "hf"}), "engines.hf-x: chooses no option; allowed: attention, cache, matmul_precision, placement, gpus"),
        (put("engines", "hf-x", {"engine": "hf", "placement": "layer"}), 'engines.hf-x.placement: "layer" is not allowed; allowed: one, layers, tensor, cpu-offload, disk-offload; did you mean layers?'),
        (put("engines", "hf-x", {"engine": "hf", "placement": "layers", "gpus": 17}), "engines.hf-x.gpus: 17 is not allowed; allowed: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16; did you mean 7?"),
        (put("engines", "hf-x", {"engine": "hf", "gpus": 2}), "engines.hf-x.gpus: 2 GPUs need a placement that uses them all; set placement to layers or tensor, or remove gpus"),
        (put("engines", "hf-x", {"engine": "hf", "placement": "layers"}), "engines.hf-x.placement: layers are spread over several GPUs; set gpus to 2 or more"),
        (put("engines", "hf-x", {"engine": "hf", "placement": "tensor"}), "engines.hf-x.placement: weights are split over several GPUs; set gpus to 2 or more"),
        (put("engines", "hf-x", {"engine": "hf", "placement": "tensor", "gpus": 2, "cache": "quantized-4bit"}), "engines.hf-x.cache: keys and values that are split over GPUs are not quantised; remove cache, or placement"),
        (put("engines", "hf-x", {"engine": "hf-static", "placement": "layers"}), "engines.hf-x.placement: hf-static has no such option; allowed: attention, compile_mode, matmul_precision"),
        (put("engines", "HF", {"engine": "hf", "attention": "eager"}), 'engines.HF: "HF" is the name of an engine; choose another'),
        (put("engines", "a/b", {"engine": "hf", "attention": "eager"}), 'engines."a/b": "a/b" is not allowed as a name; allowed: text like ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
        (put("grid", "cpu", "quality", {"tokens": 8192}), "grid.cpu.quality.text: missing; allowed: a text, not empty"),
        (put("grid", "cpu", "quality", {"text": "python", "tokens": 1000}), "grid.cpu.quality.tokens: 1000 is not allowed; allowed: an integer >= 1024"),
        (put("grid", "cpu", "quality", {"text": "python"}), "grid.cpu.quality: the weights of bloom-51m are drawn from a seed, so it has no tokenizer; remove bloom-51m from the grid, or remove this key"),
        (put("grid", "cpu", "workloads", [{"prompt_tokens": 9, "new_tokens": 8, "prompts": "text"}]), "grid.cpu.workloads[0].prompts: the weights of bloom-51m are drawn from a seed, so it has no tokenizer; remove bloom-51m from the grid, or remove this key"),
        (put("grid", "cpu", "workloads", [{"prompt_tokens": 9, "new_tokens": 8, "prompts": "texts"}]), 'grid.cpu.workloads[0].prompts: "texts" is not allowed; allowed: random, text; did you mean text?'),
        (put("grid", "cpu", "workloads", [{"prompt_tokens": 9, "new_tokens": 8, "text": "python"}]), "grid.cpu.workloads[0].text: has no use without prompts: text; add that, or remove it"),
        (put("grid", "cpu", "workloads", [{"prompt_tokens": 9, "new_tokens": 8}, {"prompt_tokens": 9, "new_tokens": 8, "prompts": "random"}]), "grid.cpu.workloads[1]: has the name of grid.cpu.workloads[0], prompt9-new8; remove one of them"),
        (put("grid", "cpu", None), "grid.cpu: null is not allowed; allowed: a mapping with models, workloads, engines, environments, precisions, batch_sizes, memory_limit, max_batch, max_batch_tolerance_percent, divergence, batch_invariance, quality, timeline, timeline_trace"),
    ],
)  # fmt: skip
def test_one_wrong_thing_is_one_line(change, line):
    assert problems(change) == [line]


def test_all_problems_are_told_at_once():
    def change(config):
        put("machnie", "x")(config)
        put("measurement", "min_cycles", 0)(config)
        put("grid", "cpu", "batch_sizes", [4, 4, -1])(config)
        put("grid", "cuda", "models", ["nope"])(config)
        put("models", "m", {"hub": "a"})(config)
        put("models", "bloom-51m", "architecture", "n_head", 7)(config)

    lines = problems(change)
    assert len(lines) == 7
    for start in ("machnie:", "measurement.min_cycles:", "grid.cpu.batch_sizes:", "grid.cpu.batch_sizes[2]:", "grid.cuda.models[0]:", "models.m.revision:", "models.bloom-51m.architecture:"):  # fmt: skip
        assert any(line.startswith(start) for line in lines), start


def test_what_depends_on_this_machine_is_told_with_the_rest(tmp_path):
    def change(config):
        put("models", "mine", {"checkpoint": str(tmp_path / "nope")})(config)
        put("models", "other", {"hub": "a"})(config)
        put("grid", "cpu", "models", ["mine", "nobody"])(config)
        put("device", "cpu")(config)

    starts = [line.split(":")[0] for line in problems(change)]
    assert sorted(starts) == ["grid.cpu.models[1]", "models.mine.checkpoint", "models.other.revision"]


def test_a_key_given_twice_is_found_where_yaml_would_keep_the_last(tmp_path):
    text = (REPO / "config.yaml").read_text() + "\nmachine: other\n"
    (tmp_path / "twice.yaml").write_text(text)
    config = yaml.safe_load(text)
    with pytest.raises(ConfigError) as caught:
        load(config, SCHEMA, [tmp_path / "twice.yaml"])
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith("machine: given 2 times")


def variant(name: str, options, models=("bloom-51m",)):
    def change(config):
        put("device", "cpu")(config)
        put("models", "llama", {"architecture": MODELS["llama"]})(config)
        put("engines", name, options)(config)
        put("grid", "cpu", "engines", ["hf", name])(config)
        put("grid", "cpu", "models", list(models))(config)

    return change


ALL_ENGINES = ", ".join(engines.ENGINES)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"engine": "sglang", "cache": "static"},
            f'engines.fast.engine: "sglang" is not allowed; allowed: {ALL_ENGINES}',
        ),
        ({"cache": "static"}, f"engines.fast.engine: missing; allowed: {ALL_ENGINES}"),
        (3, "engines.fast: 3 is not allowed; allowed: a mapping with engine"),
    ],
)
def test_a_variant_of_no_engine_in_a_grid_is_one_problem(options, line):
    assert problems(variant("fast", options)) == [line]


def test_the_remedy_for_a_number_in_place_of_a_text_works_after_config():
    """Snakemake takes quotes away there."""
    from snakemake.cli import parse_config

    (line,) = problems(lambda config: config.update(parse_config(["machine='123_456'"])))
    remedy = re.search(r"after --config write '(machine=!!str )\.\.\.'$", line)[1]
    assert parse_config([f"{remedy}123_456"]) == {"machine": "123_456"}
    assert problems(put("environments", {"old": 3}))[0].endswith("; put it in quotes")


def test_a_variant_that_no_model_of_the_grid_has_is_a_contradiction():
    sdpa = {"engine": "hf", "attention": "sdpa"}
    assert problems(variant("hf-sdpa", sdpa)) == [
        "grid.cpu.engines[1]: hf-sdpa: transformers has no sdpa attention for bloom, only eager; remove hf-sdpa"
    ]
    config = copy.deepcopy(CONFIG)
    variant("hf-sdpa", sdpa, models=("bloom-51m", "llama"))(config)
    (experiment,) = load(config, SCHEMA).experiments
    assert experiment.variants == {"hf-sdpa": sdpa}
    impossible = {(each["model"], each["engine"]): each["reason"] for each in experiment.impossible}
    assert impossible == {("bloom-51m", "hf-sdpa"): "transformers has no sdpa attention for bloom, only eager"}
    alone = put("grid", "cpu", "engines", ["hf-sdpa"])
    assert problems(lambda config: (variant("hf-sdpa", sdpa, ("bloom-51m", "llama"))(config), alone(config))) == [
        "grid.cpu.models[0]: the grid has nothing for bloom-51m: transformers has no sdpa attention for bloom, only eager; "
        "remove it"
    ]


def test_a_model_is_split_by_a_plan_of_transformers():
    options = {"engine": "hf", "placement": "tensor", "gpus": 2}
    config = copy.deepcopy(CONFIG)
    variant("hf-tensor", options, models=("bloom-51m", "llama"))(config)
    (experiment,) = load(config, SCHEMA).experiments
    assert {cell.gpus for cell in experiment.cells()} == {1}, "the slot of a CPU"
    for model, precision, reason in (
        ("bloom-51m", "fp32", "transformers has no plan of tensor parallelism for bloom"),
        ("llama", "int8", "placement tensor is for weights that are not quantised: fp32, bf16, fp16"),
    ):
        about = {"model": model, "engine": "hf-tensor", "precision": precision, "reason": reason}
        assert about in experiment.impossible
    assert {each["engine"] for each in experiment.impossible} == {"hf-tensor"}
    assert problems(variant("hf-tensor", options)) == [
        "grid.cpu.engines[1]: hf-tensor: transformers has no plan of tensor parallelism for bloom; remove hf-tensor"
    ]


def test_quantised_weights_are_not_offloaded():
    config = copy.deepcopy(CONFIG)
    variant("hf-disk", {"engine": "hf", "placement": "disk-offload"})(config)
    (experiment,) = load(config, SCHEMA).experiments
    assert [(each["engine"], each["precision"], each["reason"]) for each in experiment.impossible] == [
        ("hf-disk", "int8", "placement disk-offload is for weights that are not quantised: fp32, bf16, fp16")
    ]


def test_flash_attention_needs_a_gpu():
    lines = problems(variant("hf-flash", {"engine": "hf", "attention": "flash"}, models=("llama",)))
    assert lines == [
        "grid.cpu.engines[1]: hf-flash needs a GPU for flash attention, and the device is cpu; remove hf-flash"
    ]


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        ({"placement": "cpu-offload"}, "placement: cpu-offload"),
        ({"placement": "layers", "gpus": 2}, "gpus: 2"),
        ({"placement": "disk-offload", "gpus": 4}, "gpus: 4"),
    ],
)
def test_what_a_cpu_cannot_have_of_a_placement_is_named(options, needs):
    assert problems(variant("hf-placed", {"engine": "hf", **options})) == [
        f"grid.cpu.engines[1]: hf-placed has {needs}, which needs a GPU; remove it, or name it in grid.cuda.engines"
    ]


@pytest.mark.parametrize(("visible", "lines"), [(1, ["1 is"]), (2, ["2 are"]), (4, [])])
def test_a_variant_needs_as_many_gpus_as_it_takes(monkeypatch, visible, lines):
    gpus = [replace(GPU, index=n, uuid=f"GPU-{n}") for n in range(visible)]
    monkeypatch.setattr(hardware, "gpus", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    config = copy.deepcopy(CONFIG) | {"device": "cuda"}
    config["engines"] = {"four": {"engine": "fake", "placement": "layers", "gpus": 4}}
    config["grid"]["cuda"]["engines"] = ["four"]
    found = []
    try:
        (experiment,) = load(config, SCHEMA).experiments
        assert {cell.gpus for cell in experiment.cells()} == {4}
    except ConfigError as error:
        found = error.problems
    assert found == [f"grid.cuda.engines[0]: four needs 4 GPUs, and {n} visible here; remove four" for n in lines]


def test_a_quantised_cache_is_for_full_attention(monkeypatch):
    monkeypatch.setattr(engines, "missing_package", lambda *_, **__: None)
    options = {"engine": "hf", "cache": "quantized-4bit"}
    mistral = put("models", "mistral", {"architecture": {**MODELS["llama"], "model_type": "mistral"}})

    def with_mistral(*models: str):
        def change(config):
            mistral(config)
            variant("hf-4bit", options, models)(config)

        return change

    assert problems(with_mistral("mistral")) == [
        "grid.cpu.engines[1]: hf-4bit: transformers has a quantised cache for full attention in all layers, and mistral "
        "has sliding_window 4096; remove hf-4bit"
    ]
    config = copy.deepcopy(CONFIG)
    with_mistral("mistral", "llama")(config)
    (experiment,) = load(config, SCHEMA).experiments
    assert experiment.variants == {"hf-4bit": options}


def test_a_workload_longer_than_the_model_is_a_contradiction():
    """The last new token is fed to no model: 9 and 8 of them take 16 positions."""
    gpt2 = {"model_type": "gpt2", "n_embd": 64, "n_head": 2, "n_layer": 2, "vocab_size": 100}

    def with_positions(n):
        def change(config):
            put("models", "small", {"architecture": {**gpt2, "n_positions": n}})(config)
            put("grid", "cpu", "models", ["small"])(config)
            put("device", "cpu")(config)

        return change

    assert problems(with_positions(15)) == [
        "grid.cpu.workloads[0]: too long for model small: prompt and all new tokens but the last take 16 positions; it has 15"
    ]
    config = copy.deepcopy(CONFIG)
    with_positions(16)(config)
    load(config, SCHEMA)


def checkpoint_problem(folder: Path | str) -> str:
    """What is said of a checkpoint, the one thing that is wrong."""

    def change(config):
        put("models", "mine", {"checkpoint": str(folder)})(config)
        put("grid", "cpu", "models", ["mine"])(config)
        put("device", "cpu")(config)

    (line,) = problems(change)
    return line.removeprefix("models.mine.checkpoint: ")


def test_what_is_no_checkpoint_is_named_with_what_to_give(tmp_path):
    allowed = "allowed: a folder that save_pretrained wrote"
    assert checkpoint_problem(tmp_path / "nope") == f"{tmp_path}/nope holds no config.json; {allowed}"
    (file := tmp_path / "model.safetensors").touch()
    assert checkpoint_problem(file) == f"{file} is a file; {allowed}"
    (file := tmp_path / "it.gguf").touch()
    remedy = f"make a checkpoint of it, once: python scripts/from_gguf.py {file} it"
    assert checkpoint_problem(file) == f"{file} is a GGUF file; {remedy}"
    assert checkpoint_problem(tmp_path) == f"{tmp_path} holds a GGUF file; {remedy}"
    snapshot = tmp_path / "models--me--mine/snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    assert checkpoint_problem(snapshot.parents[1]) == (
        f"{snapshot.parents[1]} is a folder of the hub's cache; give a snapshot in it, such as {snapshot}"
    )
    assert checkpoint_problem("me/mine").endswith(f"{allowed}; a model of the hub is hub: me/mine, with its revision")


def test_quality_needs_a_text_a_tokenizer_and_room_for_a_window(tmp_path):
    weights = tmp_path / "mine"
    shutil.copytree(drawn({"architecture": MODELS["gpt2"], "seed": 0}), weights)

    def change(config):
        put("models", "mine", {"checkpoint": str(weights)})(config)
        config["grid"]["cpu"] |= {"models": ["mine"], "quality": {"text": "nope.txt"}}
        put("device", "cpu")(config)

    no_tokenizer = (
        f"the checkpoint of mine has no tokenizer ({weights}); save it there, by save_pretrained of AutoTokenizer"
    )
    others = [
        "grid.cpu.quality: windows of 512 tokens are too long for model mine: prompt and all new tokens but the last take "
        "511 positions; it has 128",
        "grid.cpu.quality.text: nope.txt is not a file; allowed: python, or a file of text in UTF-8",
    ]
    assert problems(change) == [f"grid.cpu.quality: {no_tokenizer}", *others]
    (weights / "tokenizer.json").touch()
    assert problems(change) == others


def test_prompts_from_a_text_need_a_text_a_tokenizer_and_an_engine_that_reads(tmp_path):
    weights, text = tmp_path / "mine", tmp_path / "short.txt"
    shutil.copytree(drawn({"architecture": MODELS["gpt2"], "seed": 0}), weights)
    text.write_text("eight by")
    of_text = {"new_tokens": 8, "prompts": "text", "text": str(text)}

    def change(config):
        put("models", "mine", {"checkpoint": str(weights)})(config)
        workloads = [{"prompt_tokens": 8, **of_text}, {"prompt_tokens": 9, **of_text}]
        config["grid"]["cpu"] |= {"models": ["mine"], "engines": ["fake"], "workloads": workloads}
        put("device", "cpu")(config)

    no_tokenizer = (
        f"the checkpoint of mine has no tokenizer ({weights}); save it there, by save_pretrained of AutoTokenizer"
    )
    fake = "fake makes up its times and reads no text; remove fake from the grid, or remove this key"
    assert problems(change) == [
        f"grid.cpu.workloads[0].prompts: {no_tokenizer}",
        f"grid.cpu.workloads[0].prompts: {fake}",
        f"grid.cpu.workloads[1].prompts: {no_tokenizer}",
        f"grid.cpu.workloads[1].prompts: {fake}",
        f"grid.cpu.workloads[1].text: {text} holds 8 B, less than 9 tokens; name a longer text",
    ]
    (weights / "tokenizer.json").touch()
    config = copy.deepcopy(CONFIG)
    change(config)
    config["grid"]["cpu"] |= {
        "engines": ["hf"],
        "workloads": [{"prompt_tokens": 8, **of_text}, {"prompt_tokens": 8, "new_tokens": 8}],
    }
    plan = load(config, SCHEMA)
    (of,) = plan.texts
    assert plan.experiments[0].workloads == (Workload(8, 8, "short.txt", of.sha256), Workload(8, 8))
    assert any(
        re.fullmatch(f"results/[^/]+/{plan.columns}/batch-1.json", path) for path in plan.cells if "-text/" in path
    )


def test_cuda_without_a_gpu_needs_a_name(monkeypatch):
    monkeypatch.setattr(hardware, "gpus", list)
    assert problems(put("device", "cuda")) == [
        'device: "cuda": no GPU is visible here; set device to cpu, or, if jobs run on a machine that has one, machine '
        "to its name"
    ]
    config = copy.deepcopy(CONFIG) | {"device": "cuda", "machine": "a100"}
    assert [*load(config, SCHEMA).machines] == ["a100"]


def test_configuration_and_schema_are_plain_data():
    assert json.loads(json.dumps(CONFIG)) == CONFIG
    assert Path(REPO / "config.schema.yaml").read_text().count("additionalProperties: false") >= 5


def test_a_search_on_a_cpu_needs_a_limit():
    def change(config):
        config["grid"]["cpu"] |= {"max_batch": True, "memory_limit": None}

    assert problems(change) == [
        "grid.cpu.max_batch: true needs a memory_limit on a CPU, or the search would fill the memory of the whole "
        "machine; set grid.cpu.memory_limit, or max_batch to false"
    ]


def test_an_engine_whose_package_is_missing_is_named_before_any_job(monkeypatch):
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None if name == "ctranslate2" else object())
    monkeypatch.setattr(families, "names", lambda: {"bloom": "BloomConfig"})
    assert problems(put("device", "cpu")) == [
        "grid.cpu.engines[1]: ctranslate2 needs the package ctranslate2, which is not installed here; "
        "pip install ctranslate2"
    ]


def test_a_precision_whose_package_is_missing_is_named_once(monkeypatch):
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None if name == "torchao" else object())
    monkeypatch.setattr(families, "names", lambda: {"bloom": "BloomConfig"})
    monkeypatch.setattr(compiler, "missing", lambda device: None)

    def change(config):
        grid = {"precisions": ["bf16", "int8-weight-only"], "engines": ["hf", "hf-static", "ctranslate2"]}
        config["device"], config["grid"]["cpu"] = "cpu", config["grid"]["cpu"] | grid

    assert problems(change) == [
        "grid.cpu.precisions[1]: int8-weight-only needs the package torchao, which is not installed here; "
        "pip install torchao"
    ]


def test_a_variant_whose_package_is_missing_is_named_before_any_job(monkeypatch):
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None if name == "hqq" else object())
    assert problems(variant("hf-4bit", {"engine": "hf", "cache": "quantized-4bit"})) == [
        "grid.cpu.engines[1]: hf-4bit needs the package hqq, which is not installed here; pip install hqq"
    ]


@pytest.fixture
def quantised_grid(monkeypatch, tmp_path_factory):
    """A change to a grid on a CPU with these models and precisions, where ``mine`` is quantised by GPTQ."""
    folder = quantised.save(tmp_path_factory.mktemp("mine"), "gptq")
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: object())

    def of(models: list[str], precisions: list[str]):
        def change(config):
            config["models"] |= {"mine": {"checkpoint": str(folder)}, "hub": {"hub": "a/b", "revision": "main"}}
            grid = {"models": models, "precisions": precisions, "engines": ["hf"], "memory_limit": None}
            config["device"], config["grid"]["cpu"] = "cpu", config["grid"]["cpu"] | grid

        return change

    return of


@pytest.mark.parametrize("package", ["gptqmodel", "optimum"])
def test_packages_that_would_replace_others_are_installed_alone(monkeypatch, quantised_grid, package):
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None if name == package else object())
    assert problems(quantised_grid(["mine"], ["gptq"])) == [
        f"grid.cpu.precisions[0]: gptq needs the package {package}, which is not installed here; "
        "pip install --no-deps -r envs/gptqmodel.lock"
    ]


@pytest.mark.parametrize(
    ("models", "precisions", "line"),
    [
        (["mine"], ["fp32", "int8"], ": none is possible for model mine: its weights are quantised already, by gptq; allowed: gptq"),
        (["mine", "bloom-51m"], ["gptq"], ": none is possible for model bloom-51m: its weights are not quantised by gptq; allowed: fp32, bf16, fp16, int8, int8-threshold-0, nf4, int8-weight-only, int4-weight-only"),
        (["mine"], ["gptq", "bf16"], "[1]: no model of the grid can be bf16 (mine: its weights are quantised already, by gptq); remove it"),
        (["mine", "bloom-51m"], ["gptq", "bf16", "awq"], "[2]: no model of the grid can be awq (mine: its weights are quantised already, by gptq; bloom-51m: its weights are not quantised by awq); remove it"),
    ],
)  # fmt: skip
def test_precisions_and_models_that_do_not_go_together_are_one_line(quantised_grid, models, precisions, line):
    assert problems(quantised_grid(models, precisions)) == [f"grid.cpu.precisions{line}"]


@pytest.mark.parametrize(
    ("models", "precisions"),
    [
        (["mine"], ["gptq"]),
        (["mine", "bloom-51m"], ["bf16", "gptq"]),  # each n/a for the other model
        (["hub"], ["bf16", "gptq", "awq"]),  # found out by the jobs
        (["hub", "bloom-51m"], ["bf16", "gptq"]),
    ],
)
def test_a_precision_that_some_model_may_have_is_measured(quantised_grid, models, precisions):
    config = copy.deepcopy(CONFIG)
    quantised_grid(models, precisions)(config)
    (experiment,) = load(config, SCHEMA, code=REPO).experiments
    assert experiment.precisions == tuple(precisions)
    known = {"mine": {"gptq"}, "bloom-51m": {"bf16"}, "hub": set(precisions)}
    impossible = {(name, precision) for name in models for precision in set(precisions) - known[name]}
    assert {(each["model"], each["precision"]) for each in experiment.impossible} == impossible
    assert {(cell.model["name"], cell.precision) for cell in experiment.cells()} == {
        (name, precision) for name in models for precision in precisions
    } - impossible


def test_a_precision_that_some_engine_has_is_left_out_of_the_others():
    config = copy.deepcopy(CONFIG)
    config["device"], config["grid"]["cpu"] = "cpu", config["grid"]["cpu"] | {"precisions": ["fp32", "nf4"]}
    (experiment,) = load(config, SCHEMA, code=REPO).experiments
    left_out = list(experiment.left_out())
    assert {(cell.engine, cell.precision, reason) for cell, reason in left_out} == {
        ("ctranslate2", "nf4", "ctranslate2 has no nf4")
    }
    assert [cell.batch_size for cell, _ in left_out] == config["grid"]["cpu"]["batch_sizes"]
    assert not {cell.path for cell, _ in left_out} & {cell.path for cell in experiment.cells()}


@pytest.mark.parametrize(
    ("device", "gpus", "changes", "is_refused"),
    [
        ("cuda", [GPU], {}, True),
        ("cuda", [], {}, False),  # tables of cells that were measured on another machine
        ("cpu", [], {}, False),  # the default CPU grid compiles nothing
        ("cpu", [], {"grid": {"cpu": {"engines": ["hf", "hf-static"]}}}, True),
        ("cuda", [GPU], {"grid": {"cuda": {"engines": ["hf"]}}}, False),
    ],
)
def test_a_missing_compiler_is_named_before_any_job_of_an_engine_that_compiles(
    monkeypatch, tmp_path, device, gpus, changes, is_refused
):
    monkeypatch.setattr(hardware, "gpus", lambda: gpus)
    monkeypatch.setattr(torch_build, "problem", lambda build: None)
    for variable in ("CC", "CXX", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    config = with_defaults({"device": device, "machine": "bare", **changes}, SCHEMA)
    if not is_refused:
        assert load(config, SCHEMA).machines
        return
    with pytest.raises(ConfigError) as caught:
        load(config, SCHEMA)
    compiler = {"cuda": "C compiler (gcc or clang); install gcc", "cpu": "C++ compiler (g++); install g++"}[device]
    assert caught.value.problems == [
        f"grid.{device}.engines[1]: hf-static compiles the model, and there is no {compiler}, or remove hf-static"
    ]


@pytest.mark.parametrize(
    ("grid", "line"),
    [
        ({"engines": ["hf", "ctranslate2"]}, "engines[1]: ctranslate2 cannot run on this GPU: no cuBLAS, or remove ctranslate2"),
        ({"engines": ["hf"], "precisions": ["bf16", "gptq"]}, "precisions[1]: gptq cannot run on this GPU: no nvcc, or remove gptq"),
    ],
)  # fmt: skip
def test_what_an_engine_or_a_precision_needs_for_a_gpu_is_named_before_any_job(monkeypatch, grid, line):
    monkeypatch.setattr(hardware, "gpus", lambda: [GPU])
    monkeypatch.setattr(torch_build, "problem", lambda build: None)
    monkeypatch.setattr(engines, "missing_package", lambda *_, **__: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for package, lacking in (("ctranslate2", "no cuBLAS"), ("gptqmodel", "no nvcc")):
        told = replace(engines.PACKAGES[package], missing_for_gpu=lambda lacking=lacking: lacking)
        monkeypatch.setitem(packages.PACKAGES, package, told)
        monkeypatch.setitem(engines.PACKAGES, package, told)
    entry = replace(engines.ENGINES["ctranslate2"], package=packages.PACKAGES["ctranslate2"])
    monkeypatch.setitem(engines.ENGINES, "ctranslate2", entry)

    def on_gpu(config):
        config["device"] = "cuda"
        config["models"]["hub"] = {"hub": "a/b", "revision": "main"}
        config["grid"]["cuda"] |= {"models": ["hub"], **grid}

    assert problems(on_gpu) == [f"grid.cuda.{line}"]


MACHINE = {
    "device_name": "A100",
    "slurm": {
        "partition": None, "account": None, "gpu_model": "a100", "gres": None, "constraint": None, "cpus": 8,
        "mem_mb": 64000, "runtime_minutes": 60,
    },
}  # fmt: skip


def test_machines_share_one_grid_and_the_first_device_is_not_asked_for(monkeypatch):
    monkeypatch.setattr(hardware, "gpus", list)
    config = copy.deepcopy(CONFIG) | {"device": "cuda", "machines": {"a100": MACHINE, "h200": MACHINE}}
    experiments = load(config, SCHEMA).experiments
    assert [(each.machine, each.device_name) for each in experiments] == [("a100", "A100"), ("h200", "A100")]
    assert [cell.path.replace("/h200/", "/a100/") for cell in experiments[1].cells()] == [
        cell.path for cell in experiments[0].cells()
    ]


def test_what_contradicts_machines_is_named():
    both = copy.deepcopy(MACHINE)
    both["slurm"]["gres"] = "gpu:a100:1"

    def change(config):
        config |= {"machine": "box", "machines": {"a100": both, "A100": MACHINE}}

    assert problems(change) == [
        'machine: "box" cannot be combined with machines; set machine to auto, or machines to null',
        "device: auto depends on the machine that runs Snakemake; with machines, set cuda or cpu",
        "machines.a100: the same folder as another one where file systems ignore capitals; rename it",
        "machines.A100: the same folder as another one where file systems ignore capitals; rename it",
        "machines.a100.slurm: has gres and gpu_model, which ask for a GPU each; set one of them to null",
    ]


def test_a_path_that_cannot_be_handed_to_a_job_is_named(monkeypatch, tmp_path):
    (tmp_path / "it's").mkdir()
    monkeypatch.chdir(tmp_path / "it's")
    (line,) = problems(
        lambda config: config.update(device="cuda", baselines={"a100-80gb": None}, machines={"a100": MACHINE})
    )
    assert line == f"machines: the path {tmp_path}/it's cannot be handed to a job, for the ' in it; rename or move it"


def test_what_is_not_said_of_slurm_has_defaults():
    machines = {"a100": MACHINE, "h200": {"device_name": None, "slurm": {"gres": "gpu:h200:1", "cpus": 2}}}
    config = copy.deepcopy(CONFIG) | {"device": "cuda", "machines": machines}
    requests = load(config, SCHEMA).slurm
    assert [*requests] == ["a100", "h200"]
    assert requests["a100"] == MACHINE["slurm"] | {"cells_per_job": 1}
    assert requests["h200"] == {
        "partition": None, "account": None, "gpu_model": None, "gres": "gpu:h200:1", "constraint": None, "cpus": 2,
        "mem_mb": 64000, "runtime_minutes": 60, "cells_per_job": 1,
    }  # fmt: skip
    assert load(CONFIG, SCHEMA).slurm == {}


@pytest.mark.parametrize("key", ["partition", "account", "gpu_model", "gres", "constraint"])
@pytest.mark.parametrize("value", ["$(touch pwned)", "a; b", "a'b", "--wrap=x", "a b", "`x`", ""])
def test_nothing_of_machines_can_be_more_than_a_word_to_a_shell(key, value):
    hostile = copy.deepcopy(MACHINE)
    hostile["slurm"] |= {"gpu_model": None, key: value}
    (line,) = problems(lambda config: config.update(device="cuda", machines={"a100": hostile}))
    assert line.startswith(f"machines.a100.slurm.{key}: {json.dumps(value)} is not allowed")
