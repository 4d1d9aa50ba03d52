"""What the rules look up in a plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_up import make_experiment

from inference_benchmark import files
from inference_benchmark.experiment.outputs import thread_trial
from inference_benchmark.experiment.plan import Plan
from inference_benchmark.experiment.supervision import Supervision

SLURM = {
    "partition": "gpu", "account": None, "gpu_model": None, "gres": None, "constraint": None, "cpus": 8, "mem_mb": 500,
    "runtime_minutes": 60, "cells_per_job": 1,
}  # fmt: skip
HERE = Plan((make_experiment(1, 2, max_batch=True, engines=("hf",)),), Supervision(), slurm={})


def on_slurm(**requests) -> Plan:
    """Two machines, each with the same four cells."""
    experiment = make_experiment(1, 2, 4, 8)
    machines = [replace(experiment, machine=name, device_name=name.upper()) for name in ("a100", "h200")]
    return Plan(tuple(machines), Supervision(), dict.fromkeys(("a100", "h200"), SLURM | requests))


def of(plan: Plan, batch: int | str, machine: str = "box") -> dict[str, str]:
    """The wildcards of a cell."""
    column = f"tiny/prompt4-new8/{plan.machines[machine].engines[0]}/fp32"
    return {"machine": machine, "column": column, "batch": str(batch)}


def test_cells_and_studies_are_found_by_the_paths_of_their_records():
    paths = [f"results/box/tiny/prompt4-new8/hf/fp32/batch-{n}.json" for n in (1, 2)]
    assert list(HERE.cells) == HERE.records_of_machine({"machine": "box"}) == paths
    assert HERE.json_of("cell")(of(HERE, 2)) == HERE.cells[paths[1]].to_json()
    folder = "results/box/tiny/prompt4-new8/hf/fp32"
    assert HERE.requested_studies == ["results/box/ceilings.json", f"{folder}/max-batch.json"]
    assert HERE.studies_of_machine({"machine": "box"}) == HERE.requested_studies
    assert HERE.studies.keys() == {
        *HERE.requested_studies,
        f"{folder}/divergence.json",
        f"{folder}/batch-invariance.json",
    }
    assert (
        HERE.json_of("max-batch")({"machine": "box", "column": "tiny/prompt4-new8/hf/fp32"})
        == HERE.studies[f"{folder}/max-batch.json"].to_json()
    )


def test_cells_that_come_first_are_measured_first():
    assert HERE.priority(of(HERE, 1)) > HERE.priority(of(HERE, 2)) > 0
    twice = replace(HERE, experiments=(replace(HERE.experiments[0], rounds=2),))
    assert twice.priority(of(HERE, 2)) > twice.priority(of(HERE, "1.round-2")) > 0


def test_cells_that_are_compared_follow_each_other_in_alternating_order():
    experiment = replace(HERE.experiments[0], engines=("hf", "fake"), precisions=("fp32", "bf16"), rounds=2)
    plan = replace(HERE, experiments=(experiment,))

    def wildcards(path: str) -> dict[str, str]:
        _, machine, *column, name = path.split("/")
        batch = name.removeprefix("batch-").removesuffix(".json")
        return {"machine": machine, "column": "/".join(column), "batch": batch}

    order = sorted(plan.cells, key=lambda path: -plan.priority(wildcards(path)))
    places = [(cell.round, cell.precision, cell.batch_size, cell.engine) for cell in map(plan.cells.get, order)]
    engines = {1: ("hf", "fake"), 2: ("fake", "hf")}
    assert places == [
        (number, precision, size, engine)
        for number in (1, 2)
        for precision in ("fp32", "bf16")
        for size in (1, 2)
        for engine in engines[number]
    ]
    assert [cell.engine for cell in plan.cells.values()][:4] == ["hf"] * 4, "the order of tables is another"


def test_further_rounds_are_known_before_it_is_decided_which_there_are():
    experiment = make_experiment(1, 2, 4, 8, rounds=2, most_rounds=4)
    plan = Plan((experiment,), Supervision(), {"box": SLURM | {"cells_per_job": 3}})
    assert len(plan.cells) == 8, "two rounds of the whole grid"
    paths = {n: f"results/box/tiny/prompt4-new8/fake/fp32/batch-4{n}.json" for n in ("", ".round-3", ".round-5")}
    third = replace(plan.cells[paths[""]], round=3)
    assert plan.subject(paths[".round-3"]) == third
    assert third.path == paths[".round-3"]
    assert plan.json_of("cell")(of(plan, "4.round-3")) == third.to_json()
    assert plan.subject(paths[".round-5"]) is plan.subject("results/box/report.html") is None
    with pytest.raises(KeyError):
        plan.json_of("cell")(of(plan, "4.round-5"))
    order = [of(plan, f"{size}{n}") for n in ("", ".round-2", ".round-3", ".round-4") for size in (1, 2, 4, 8)]
    priorities = [plan.priority(each) for each in order]
    assert priorities == sorted(set(priorities), reverse=True)
    assert priorities[-1] > 0
    assert [plan.job_name(each) for each in order] == [f"box-{n // 3}" for n in range(16)]


def test_further_records_follow_from_a_decision(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = Plan((make_experiment(1, 2, rounds=2, most_rounds=4),), Supervision(), {})
    assert plan.undecided("results/box/rounds.json") == ([plan.cells[path] for path in list(plan.cells)[:2]], 2)
    assert plan.undecided("results/box/summary.csv") is None
    with pytest.raises(ValueError, match=r"results/box/rounds\.json does not say"):
        plan.further_records("box")
    first = [f"results/box/tiny/prompt4-new8/fake/fp32/batch-{size}.json" for size in (1, 2)]
    files.write_json(
        {"inputs_sha256": "", "cells": {first[0]: {"rounds": 4}, first[1]: {"rounds": 3}}},
        tmp_path / "results/box/rounds.json",
    )
    names = ["batch-1.round-3", "batch-2.round-3", "batch-1.round-4"]
    assert [Path(path).stem for path in plan.further_records("box")] == names


def test_answers_of_a_column_are_compared_right_after_the_first_round_of_its_cells():
    two_rounds = replace(HERE.experiments[0], rounds=2, precisions=("fp32", "bf16"))
    plan = replace(HERE, experiments=(two_rounds,))
    for precisions in (["fp32"], ["fp32", "bf16"]):
        column = f"tiny/prompt4-new8/hf/{precisions[-1]}"
        priority = plan.priority_after_column({"machine": "box", "column": column})
        for cell in two_rounds.cells():
            _, _, *of_column, name = Path(cell.path).parts
            batch = Path(name).stem.removeprefix("batch-")
            comes_before = plan.priority({"machine": "box", "column": "/".join(of_column), "batch": batch}) > priority
            assert comes_before == (cell.round == 1 and cell.precision in precisions), cell.path


def test_on_this_machine_nothing_is_asked_of_slurm():
    assert HERE.slurm_resources == {}
    assert HERE.watched == Supervision()
    assert HERE.gpus({"machine": "box"}) == 1
    assert not HERE.shares_jobs


def test_a_repeated_job_asks_for_more_time_and_memory_and_for_nothing_else():
    resources = on_slurm().slurm_resources
    for attempt in (1, 3):
        requested = {name: value({"machine": "h200"}, attempt) for name, value in resources.items()}
        assert requested == {
            "slurm_partition": "gpu", "slurm_account": None, "gpu_model": None, "gres": None, "constraint": None,
            "cpus_per_task": 8, "mem_mb": 500 * attempt, "runtime": 60 * attempt, "nodes": None,
        }  # fmt: skip


def test_a_job_has_to_be_on_the_device_of_its_machine():
    assert on_slurm().watched({"machine": "h200"}) == Supervision(device_name="H200")


def test_a_gpu_is_asked_for_once():
    assert on_slurm().gpus({"machine": "a100"}) == 1
    assert on_slurm(gres="gpu:1").gpus({"machine": "a100"}) == 0


@pytest.mark.parametrize("n", [2, 4])
def test_several_gpus_are_asked_for_of_one_node(n):
    """For every kind of job of the variant, and in no job of others."""
    options = {"engine": "fake", "placement": "layers", "gpus": n}

    def of_variants(**requests) -> Plan:
        plan = on_slurm(cells_per_job=2, **requests)
        placed = {"device": "cuda", "engines": ("fake", "placed"), "variants": {"placed": options}}
        return replace(plan, experiments=tuple(replace(each, **placed) for each in plan.experiments))

    def asked(plan: Plan, column: str, resource: str):
        return plan.slurm_resources[resource]({"machine": "a100", "column": column, "batch": "1"}, 1)

    plan, one, several = of_variants(), "tiny/prompt4-new8/fake/fp32", "old/tiny/prompt4-new8/placed/fp32"
    wildcards = [{"machine": "a100", "column": column, "batch": "1"} for column in (one, several)]
    assert [plan.gpus(each) for each in wildcards] == [1, 0]
    assert [asked(plan, column, "gres") for column in (one, several)] == [None, f"gpu:{n}"]
    assert [asked(plan, column, "nodes") for column in (one, several)] == [None, 1]
    by_model = of_variants(gpu_model="h200")
    assert [asked(by_model, column, "gpu_model") for column in (one, several)] == ["h200", None]
    assert [asked(by_model, column, "gres") for column in (one, several)] == [None, f"gpu:h200:{n}"]
    here = replace(plan, slurm={})
    assert [here.gpus(each) for each in wildcards] == [1, n]
    assert plan.gpus({"machine": "a100"}) == 1
    assert plan.job_name(wildcards[0]) == "a100-0"
    assert plan.job_name({**wildcards[1], "column": several.removeprefix("old/")}) is None, "a job of its own"
    for gres in ("gpu", "gpu:h200", "gpu:h200:1"):
        by_gres = of_variants(gres=gres)
        assert [by_gres.gpus(each) for each in wildcards] == [0, 0]
        wanted = f"{gres.removesuffix(':1')}:{n}"
        assert [asked(by_gres, column, "gres") for column in (one, several)] == [gres, wanted]
    records = [cell.path for cell in plan.cells.values()]
    assert plan.most_gpus(records) == n
    assert plan.most_gpus(path for path in records if "/fake/" in path) == plan.most_gpus([]) == 1
    # A trial is of the first cell.
    for engines, gpus in ((("fake", "placed"), 1), (("placed", "fake"), n)):
        trying = replace(plan, experiments=tuple(replace(each, engines=engines) for each in plan.experiments))
        assert trying.most_gpus([thread_trial("a100")]) == gpus
        asked_by_trial = {
            name: request({"machine": "a100"}, 1) for name, request in trying.resources_of_first_cell.items()
        }
        assert asked_by_trial["gpu"] == (1 if gpus == 1 else 0)
        assert asked_by_trial["gres"] == (None if gpus == 1 else f"gpu:{n}")
        at_home = replace(trying, slurm={}).resources_of_first_cell
        assert {name: request({"machine": "a100"}, 1) for name, request in at_home.items()} == {"gpu": gpus}


def test_a_cpu_has_one_slot_for_all_processes_of_a_model():
    options = {"engine": "fake", "placement": "tensor", "gpus": 4}
    experiment = replace(HERE.experiments[0], engines=("split",), variants={"split": options})
    plan = replace(HERE, experiments=(experiment,))
    assert plan.gpus({"machine": "box", "column": "tiny/prompt4-new8/split/fp32", "batch": "1"}) == 1
    assert plan.most_gpus(plan.cells) == 1


def test_cells_that_follow_each_other_share_a_job():
    plan = on_slurm(cells_per_job=3)
    names = [plan.job_name(of(plan, n, machine)) for machine in ("a100", "h200") for n in (1, 2, 4, 8)]
    assert names == ["a100-0"] * 3 + ["a100-1"] + ["h200-0"] * 3 + ["h200-1"]
    assert plan.shares_jobs
    assert not on_slurm().shares_jobs
    assert on_slurm().job_name(of(on_slurm(), 1, "a100")) is None


def test_a_baseline_is_found_by_its_name():
    plan = Plan((make_experiment(baselines={"before": "old/results/box"}),), Supervision(), {})
    assert plan.baseline({"baseline": "before"}) == "old/results/box"
    with pytest.raises(KeyError):
        plan.baseline({"baseline": "other"})
