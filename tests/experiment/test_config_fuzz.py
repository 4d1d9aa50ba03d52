"""Whatever a configuration holds, it is a plan or a list of short lines, and never a traceback.

FUZZ_EXAMPLES=100000 pytest tests/experiment/test_config_fuzz.py    many more cases, other ones each time
"""

from __future__ import annotations

import copy
import datetime
import os
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from made_up import MODELS
from running import REPO
from snakemake.common.configfile import load_configfile
from snakemake.exceptions import WorkflowError

from inference_benchmark.experiment import config as configs
from inference_benchmark.experiment.config import load
from inference_benchmark.experiment.config_errors import ConfigError
from inference_benchmark.experiment.config_file import has_keys, not_plain
from inference_benchmark.experiment.defaults import with_defaults
from inference_benchmark.experiment.variants import with_names
from inference_benchmark.models import families

SCHEMA = with_names(yaml.safe_load((REPO / "config.schema.yaml").read_text()))
CONFIG = yaml.safe_load((REPO / "config.yaml").read_text())
IS_VALID = fastjsonschema.compile(SCHEMA, use_default=False)
SLURM = {"partition": "a", "gpu_model": None, "gres": "gpu:1", "cpus": 8, "mem_mb": 1000, "runtime_minutes": 5}
#: Every kind of section, so that each can be spoilt.
FULL = {
    **CONFIG,
    "device": "cpu",
    "models": {
        **CONFIG["models"],
        **{name: {"architecture": sizes, "seed": 1} for name, sizes in MODELS.items()},
        "local": {"checkpoint": "some/folder"},
        "hub": {"hub": "a/b", "revision": "c" * 40},
    },
    "machines": {"a100": {"device_name": "A100", "slurm": SLURM}},
    "baselines": {"mine": "results/mine"},
    "history": ["results/mine"],
}

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 0))


def fuzz(examples: int):
    return settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
    )


# A lone / would be searched for records.
texts = some.text(some.characters(exclude_characters="/"), max_size=12) | some.sampled_from(
    [
        "", "x" * 5000, "9" * 400 + " GB", "80 GB\n", "auto\n", "1e-5", "\0", "../x", "/dev/null/x", "é", "\ud800", "{x}",
        "bert", "t5", "gemma3", "gpt-sw3", "mamba", "hf", "fp32", "cpu", "cuda", "bloom-51m", "model_type", "n_embed",
        *SCHEMA["properties"],
    ]
)  # fmt: skip
numbers = some.integers() | some.floats() | some.sampled_from([0, 1, 1.0, 2**63, -1, 10**4000, 1e308])
scalars = some.none() | some.booleans() | numbers | texts
odd = some.dates() | some.binary(max_size=4) | some.just({1, 2}) | some.just((1, 2)) | some.just(datetime.timedelta(1))
keys = texts | some.none() | some.booleans() | some.integers() | some.dates() | some.tuples(some.integers(), texts)
values = some.recursive(
    scalars | odd | some.sampled_from([[], {}]),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(keys, inner, max_size=4),
    max_leaves=8,
)


def paths(value: Any, path: tuple = ()) -> list[tuple]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(each for key, part in parts for each in paths(part, (*path, key)))]


@some.composite
def spoilt(draw) -> dict:
    """A valid configuration with a few places changed, removed or added to."""
    config = copy.deepcopy(draw(some.sampled_from([FULL, CONFIG, {**FULL, "machines": None}])))
    for _ in range(draw(some.integers(1, 4))):
        *path, key = draw(some.sampled_from([path for path in paths(config) if path]))
        place = config
        for part in path:
            place = place[part]
        match draw(some.sampled_from(["change", "remove", "add", "itself"])):
            case "change":
                place[key] = draw(values)
            case "remove":
                del place[key]
            case "itself":
                place[key] = place
                break
            case "add" if isinstance(place, dict):
                place[draw(keys)] = draw(values)
            case "add":
                place.append(draw(values | some.just(copy.deepcopy(place[key]))))
    return config


def judge(config: Any, files: list = ()) -> list[str]:
    """What is said of a configuration; nothing if it is a plan that jobs could follow."""
    try:
        plan = load(config, SCHEMA, files)
    except ConfigError as caught:
        problems = caught.problems
    else:
        cell = next(plan.any_machine.cells())
        assert type(cell).from_json(cell.to_json()) == cell
        return []
    assert problems
    for line in problems:
        assert 0 < len(line) <= 400, line
        assert len(line.splitlines()) == 1, line
        assert "Error" not in line, line
    return problems


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch, tmp_path):
    """Paths of a configuration lead nowhere. The schema is compiled once, and not for each case."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(configs.fastjsonschema, "compile", lambda schema, use_default: IS_VALID)


@fuzz(400)
@given(spoilt())
def test_a_spoilt_configuration_is_told_in_lines(config):
    judge(config)


@fuzz(450)
@given(some.dictionaries(keys, values, max_size=4))
def test_anything_is_told_in_lines(config):
    judge(config)


@fuzz(400)
@given(
    some.dictionaries(texts | some.sampled_from(sorted(families.family("llama").keys)), values, max_size=6), some.data()
)
def test_any_architecture_is_told_in_lines(sizes, data):
    sizes["model_type"] = data.draw(some.sampled_from(sorted(families.names())) | texts)
    config = {"device": "cpu", "models": {"m": {"architecture": sizes}}, "baselines": {"a100-80gb": None}}
    judge(config | {"grid": {"cpu": {"models": ["m"]}}})


@fuzz(80)
@given(spoilt())
def test_a_yaml_file_is_told_in_lines(config):
    try:
        text = yaml.dump(config)
    except (TypeError, ValueError, RecursionError):  # cannot be written
        return
    with open("mine.yaml", "w", encoding="utf-8", errors="replace") as stream:
        stream.write(text)
    try:
        if has_keys(path := Path("mine.yaml")):
            judge(load_configfile("mine.yaml"), [path])
    except (ConfigError, WorkflowError):
        pass


@fuzz(100)
@given(spoilt())
def test_both_validators_agree(config):
    """fastjsonschema says whether a configuration is valid, and jsonschema explains why not."""
    if list(not_plain(config)):
        return
    config = with_defaults(config, SCHEMA)
    try:
        IS_VALID(config)
        is_valid = not configs._holds_whole_float(config)
    except fastjsonschema.JsonSchemaException:
        is_valid = False
    errors = configs._schema_errors(config, SCHEMA)
    assert is_valid <= (not errors)
    assert errors or is_valid or configs._holds_whole_float(config)


#: In a file: keys that are no text, values that contain themselves, and what Snakemake's loader cannot read.
FILES = {
    "min_seconds is a list": ("measurement: {min_seconds: []}", "measurement.min_seconds: [] is not allowed"),
    "max_seconds is a mapping": ("measurement: {max_seconds: {a: 1}}", 'measurement.max_seconds: {"a": 1} is not allowed'),
    "slurm is a list": ("device: cpu\nmachines: {a: {slurm: []}}", "machines.a.slurm: [] is not allowed"),
    "a tuple as key": ("measurement: {? !!python/tuple [1, 2] : 3}", "measurement: the key [1, 2] is not text; write text"),
    "a number as key": ("models: {13: {hub: a/b, revision: c}}", "models: the key 13 is not text; put it in quotes"),
    "a switch as key": ("watch: {on: 1}", "watch: the key true is not text; put it in quotes"),
    "nothing as key": ("~: 1", "config: the key null is not text; put it in quotes"),
    "a date": ("machine: 2026-01-01", "machine: 2026-01-01 is a date to YAML; put it in quotes"),
    "a number for a text": ("machine: 4090", 'machine: 4090 is not allowed; allowed: text like ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$; put it in quotes; after --config write \'machine=!!str ...\''),
    "a text for a number": ("watch: {sample_hz: 1e1}", 'watch.sample_hz: "1e1" is not allowed; allowed: a number > 0; YAML reads this as text: write 1.0e+1'),
    "not a number": ("measurement: {max_seconds: .nan}", "measurement.max_seconds: nan is not allowed; allowed: a finite number"),
    "infinite": ("measurement: {min_seconds: .inf}", "measurement.min_seconds: inf is not allowed; allowed: a finite number"),
    "a line break at the end": ('machine: "box\\n"', 'machine: "box\\n" is not allowed'),
    "a set": ("models: !!set {a, b}", "models: set is not allowed"),
    "bytes": ("machine: !!binary aGVsbG8=", "machine: bytes is not allowed"),
    "in itself": ("models: &a [*a]", "nested more than 20 levels deep, or in itself; write it out"),
    "aliases of aliases": (
        "".join(f"{name}: &{name} [{', '.join([of] * 9)}]\n" for of, name in zip(["1", "*a", "*b", "*c", "*d", "*e"], "abcdef", strict=True)),
        "config: holds more than 100,000 values",
    ),
    "an alias": ("models: {a: &a {hub: x/y, revision: z}, b: *a}\nmachine: ''", 'machine: "" is not allowed'),
    "a long name": (f"models: {{{'x' * 1000}: {{hub: a}}}}", "..."),
    "a long path": (f"baselines: {{mine: {'x' * 3000}}}", "File name too long"),
    "no file name": ('baselines: {mine: "a\\0b"}', "holds characters that no file name can hold"),
    "half a character": ('{"machine": "\\ud800"}', "holds characters that no file name can hold"),
    "an endless size": (f"grid: {{cpu: {{memory_limit: {'9' * 400} GB}}}}", "is not a size such as"),
    "JSON with tabs": ('{\n\t"machine": ""\n}', 'machine: "" is not allowed'),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_one_odd_thing_in_a_file_is_one_line(case, tmp_path):
    text, line = FILES[case]
    (tmp_path / "mine.yaml").write_text(text)
    path = tmp_path / "mine.yaml"
    config = load_configfile(path)
    if isinstance(config.get("baselines", {}), dict):
        config.setdefault("baselines", {})["a100-80gb"] = None
    said = judge(config, [path])
    assert any(line in each for each in said), said


@pytest.mark.parametrize(
    "content", [b"a: \xe9", b"a: " + b"1" * 5000, b"a: " + b"[" * 2000 + b"]" * 2000, b"a: 2026-13-45"]
)
def test_a_file_that_snakemake_could_not_load_is_one_line(content, tmp_path):
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"mine\.yaml cannot be read as YAML|a.0..*: nested more than") as caught:
        has_keys(tmp_path / "mine.yaml")
    assert len(caught.value.problems) == 1


def test_a_file_of_comments_holds_no_keys(tmp_path):
    (tmp_path / "mine.yaml").write_text("# a: 1\n\n")
    assert not has_keys(tmp_path / "mine.yaml")
