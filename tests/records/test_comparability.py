"""Which facts must agree in one table."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_up import OLD, OOM, make_ceilings, make_cell, make_record

from inference_benchmark.engines import PACKAGES
from inference_benchmark.records import comparability


def test_what_a_cell_could_not_find_out_disagrees_with_nothing():
    whole = make_record(make_cell(batch_size=1), model={"threads": 2, "cuda": None}, variables={"OMP_NUM_THREADS": "2"})
    cut_off = make_record(
        make_cell(batch_size=2), outcome="oom", reason=OOM, model={}, variables={"OMP_NUM_THREADS": "2"}
    )
    assert comparability.disagreements([whole, cut_off]) == []
    assert comparability.splits([whole, cut_off]) == ["", ""]
    others = make_record(make_cell(batch_size=4), model={"threads": 4}, device={"name": "Other CPU"}, variables={})
    differences = comparability.disagreements([whole, cut_off, others])
    path = "results/box/tiny/prompt4-new8/fake/fp32/batch-4.json"
    assert differences[:3] == [
        f"tiny prompt4-new8: device differs: Some CPU in 2 cells; Other CPU in {path}",
        "tiny prompt4-new8: threads differs: 2 in 1 cells; 4 in " + path,
        f"tiny prompt4-new8: environment OMP_NUM_THREADS differs: 2 in 2 cells; not set in {path}",
    ]
    of_another_model = replace(others, cell=replace(others.cell, model={"name": "m2"}))
    assert comparability.disagreements([whole, of_another_model]) == []


def test_variables_that_change_nothing_need_not_agree_in_records_that_have_them():
    """As records of earlier versions have them."""
    jobs = [
        make_record(make_cell(batch_size=n), variables={"CUDA_MPS_PIPE_DIRECTORY": f"/tmp/{n}", "CT2_USE_MKL": "1"})
        for n in (1, 2)
    ]
    assert comparability.disagreements(jobs) == []
    other = make_record(make_cell(batch_size=4), variables={"CT2_USE_MKL": "0"})
    (line, _) = comparability.disagreements([*jobs, other])
    assert line.endswith(f"environment CT2_USE_MKL differs: 1 in 2 cells; 0 in {other.cell.path}")


def test_what_a_variant_chooses_is_no_circumstance():
    engine = make_record(make_cell(batch_size=1), model={"float32_matmul_precision": "highest", "tf32": False})
    settings = {"float32_matmul_precision": "high", "tf32": True}
    variant = make_record(make_cell(engine="fast"), model={**settings, "options": {"matmul_precision": "high"}})
    assert comparability.disagreements([engine, variant]) == []
    by_accident = make_record(make_cell(engine="fast"), model=settings)
    assert len(comparability.disagreements([engine, by_accident])) == 3  # two facts and the remedy


def test_how_many_gpus_a_cell_has_is_no_circumstance_and_how_they_are_linked_is():
    def on(n: int, batch_size: int, *links: str, names=("GPU",)):
        several = {"devices": [{}] * n, "links": list(links)} if n > 1 else {}
        return make_record(make_cell(batch_size=batch_size), device={"name": ", ".join(names), **several})

    alike = [on(1, 1), on(2, 2, "NVLink"), on(2, 4, "NVLink"), on(4, 8, "NVLink", "SYS"), on(2, 16)]
    assert comparability.disagreements(alike) == []
    (line, _) = comparability.disagreements([*alike, on(2, 32, "PIX")])
    assert line.startswith("tiny prompt4-new8: links between 2 GPUs differs: NVLink in 2 cells; PIX in results/")
    (line, _) = comparability.disagreements([*alike, on(2, 32, "NVLink", names=("GPU", "Other"))])
    assert line.startswith("tiny prompt4-new8: device differs: GPU in 5 cells; GPU, Other in results/")


def test_environments_have_software_of_their_own_and_agree_within_each():
    def of(torch, batch_size=1, environment=OLD, **changes):
        cell = make_cell(batch_size=batch_size, environment=environment)
        return make_record(cell, software={"python": "3.11", "torch": torch}, **changes)

    alike = [make_record(make_cell(batch_size=n)) for n in (1, 2)] + [of("2.8.0"), of("2.8.0", 2)]
    assert comparability.disagreements(alike) == []
    assert comparability.splits(alike) == [""] * 4
    other = of("2.9.0", 4)
    assert comparability.disagreements([*alike, other])[:-1] == [
        f"tiny prompt4-new8 in old: torch differs: 2.8.0 in 2 cells; 2.9.0 in {other.cell.path}"
    ]
    assert comparability.splits([*alike, other]) == ["", "", "torch 2.8.0", "torch 2.8.0", "torch 2.9.0"]
    elsewhere = of("2.8.0", 4, device={"name": "Other CPU"})
    assert comparability.disagreements([*alike, elsewhere])[:-1] == [
        f"tiny prompt4-new8: device differs: Some CPU in 4 cells; Other CPU in {elsewhere.cell.path}"
    ]
    assert comparability.environments(alike) == {
        "current": {"torch": ["2.13.0"], "python": ["3.11"]},
        "old": {"torch": ["2.8.0"], "python": ["3.11"]},
    }


@pytest.mark.parametrize("package", [each for each in PACKAGES.values() if each.compared_in], ids=str)
def test_every_package_may_differ_between_environments_and_not_within_one(package):
    def of(version, batch_size, environment):
        cell = make_cell(batch_size=batch_size, environment=environment)
        return make_record(cell, **{package.compared_in: {package.name: version}})

    current, old, older = of("1", 1, {}), of("2", 1, OLD), of("3", 2, OLD)
    assert comparability.disagreements([current, old]) == []
    assert comparability.disagreements([current, old, older])[:-1] == [
        f"tiny prompt4-new8 in old: {package} differs: 2 in 1 cells; 3 in {older.cell.path}"
    ]


def test_ceilings_are_those_of_the_machine_whatever_software_a_cell_has():
    ceilings = make_ceilings()
    known = comparability.facts_that_must_agree(ceilings)
    old = make_record(make_cell(environment=OLD), software={"torch": "2.8.0"})
    current = make_record(make_cell(), software={"torch": "2.8.0"})

    def differing(record):
        about = comparability.facts_about(ceilings.study, known, record.cell)
        return comparability.disagreeing(about, comparability.facts_that_must_agree(record))

    assert differing(old) == {}
    assert differing(current) == {"torch": ("2.13.0", "2.8.0")}
    assert differing(make_record(old.cell, device={"name": "Other CPU"})) == {"device": ("Some CPU", "Other CPU")}
