"""Which studies an experiment asks for."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from made_up import make_cell, make_experiment, measurement

from inference_benchmark.experiment.as_json import CellError
from inference_benchmark.experiment.cells import Workload
from inference_benchmark.experiment.experiment import Experiment
from inference_benchmark.experiment.studies import (
    BatchStudy,
    CeilingsStudy,
    ColumnStudy,
    QualityStudy,
    TimelineStudy,
    requested_studies,
    study_from_json,
    study_paths,
)

TEXT = {"text": "python", "text_sha256": "0" * 64, "tokens": 8192}


@pytest.mark.parametrize(
    "study",
    [
        CeilingsStudy("box", "cpu", None),
        ColumnStudy.of("max-batch", make_cell(memory_limit_bytes=10)),
        ColumnStudy.of("divergence", make_cell(memory_limit_bytes=10)),
        BatchStudy.at((1, 4), make_cell(memory_limit_bytes=10)),
        QualityStudy.of_text(TEXT, make_cell(memory_limit_bytes=10)),
        TimelineStudy(make_cell(options={"engine": "fake", "attention": "eager"}), trace=True),
    ],
    ids=lambda study: study.kind,
)
def test_a_study_comes_back_from_json(study):
    assert study_from_json(study.to_json()) == study
    assert json.loads(study.to_json()) == study.to_document()
    assert "\n" not in study.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 0}, "version of the study max-batch is 0; this program does version 2"),
        (
            {"kind": "min-batch"},
            "there is no study named 'min-batch'; allowed: ceilings, max-batch, divergence, batch-invariance, quality, timeline",
        ),
        ({"kind": []}, "there is no study named"),
        ({"model": {}}, "model is {}; allowed: a mapping with name"),
        ({"extra": 1}, "exactly the keys"),
        ({"workload": {"prompt_tokens": 0, "new_tokens": 1}}, "prompt_tokens is 0"),
    ],
)
def test_a_text_that_is_no_study_is_refused(change, message):
    values = json.loads(ColumnStudy.of("max-batch", make_cell()).to_json())
    with pytest.raises(CellError, match=message):
        study_from_json(json.dumps(values | change))
    for text in ("{", "[]", "null"):
        with pytest.raises(CellError):
            study_from_json(text)


def test_an_experiment_asks_for_ceilings_and_the_studies_that_are_on():
    experiment = make_experiment(engines=("hf", "fake"), max_batch=True, divergence=True)
    folder = "results/box/tiny/prompt4-new8"
    assert [study.path for study in requested_studies(experiment)] == [
        "results/box/ceilings.json",
        f"{folder}/hf/fp32/max-batch.json",
        f"{folder}/fake/fp32/max-batch.json",
        f"{folder}/hf/fp32/divergence.json",
    ]
    assert [study.path for study in requested_studies(make_experiment(engines=("hf",)))] == [
        "results/box/ceilings.json"
    ]
    assert list(requested_studies(make_experiment(engines=("fake",)))) == []


def test_links_are_measured_where_weights_come_over_them_and_the_limit_decides_which():
    options = {"engine": "hf", "placement": "disk-offload"}
    experiment = make_experiment(engines=("hf",), divergence=True, memory_limit_bytes=10)
    assert '"links"' not in next(requested_studies(experiment)).to_json(), "as before there were any"
    ceilings, whole, off = requested_studies(replace(experiment, engines=("hf", "off"), variants={"off": options}))
    assert ceilings == CeilingsStudy("box", "cpu", None, links=True)
    assert study_from_json(ceilings.to_json()) == ceilings
    assert (whole.memory_limit_bytes, off.memory_limit_bytes) == (None, 10)


def test_the_studies_about_a_cell_are_found_by_path():
    folder = "results/box/tiny/prompt4-new8/fake/fp32"
    assert study_paths(make_cell()) == {
        "ceilings": "results/box/ceilings.json",
        "max-batch": f"{folder}/max-batch.json",
        "divergence": f"{folder}/divergence.json",
        "batch-invariance": f"{folder}/batch-invariance.json",
        "quality": "results/box/tiny/prompt257-new255/fake/fp32/quality.json",
        "timeline": f"{folder}/timeline-batch-2.json",
    }


def test_timelines_are_done_of_the_batch_sizes_that_are_named_in_the_first_round_alone():
    experiment = make_experiment(1, 2, 4, precisions=("fp32", "bf16"), rounds=3, timeline=(1, 4))
    assert [study.path for study in requested_studies(experiment)] == [
        f"results/box/tiny/prompt4-new8/fake/{precision}/timeline-batch-{size}.json"
        for precision in ("fp32", "bf16")
        for size in (1, 4)
    ]


def test_answers_are_compared_at_all_batch_sizes_within_the_limit_of_the_cells():
    experiment = make_experiment(4, 1, engines=("hf", "fake"), batch_invariance=True, memory_limit_bytes=10)
    study = [*requested_studies(experiment)][-1]
    assert study.path == "results/box/tiny/prompt4-new8/hf/fp32/batch-invariance.json"
    assert (study.batch_sizes, study.memory_limit_bytes) == ((1, 4), 10)
    assert experiment.grid_json() == replace(experiment, batch_invariance=False).grid_json()


def test_quality_is_measured_once_for_all_workloads():
    workloads = (Workload(4, 8), Workload(16, 8, "python", "0" * 64))
    experiment = make_experiment(engines=("hf", "fake"), precisions=("fp32", "bf16"), workloads=workloads, quality=TEXT)
    studies = [study for study in requested_studies(experiment) if study.kind == "quality"]
    folder = "results/box/tiny/prompt257-new255/hf"
    assert [study.path for study in studies] == [f"{folder}/fp32/quality.json", f"{folder}/bf16/quality.json"]
    seeded = replace(experiment, measurement=measurement(seed=7), memory_limit_bytes=10)
    assert [study for study in requested_studies(seeded) if study.kind == "quality"] == studies
    assert experiment.grid_json() == replace(experiment, quality={}).grid_json()


def test_an_experiment_without_timelines_is_written_as_before_there_were_any():
    assert not {"timeline", "quality", "batch_invariance"} & json.loads(make_experiment().to_json()).keys()
    experiment = make_experiment(timeline=(1,), timeline_trace=True, quality=TEXT, batch_invariance=True)
    assert Experiment.from_json(experiment.to_json()) == experiment
