"""Which facts must agree in one table."""

from __future__ import annotations

from dataclasses import replace

from made_up import OOM, make_cell, make_record

from inference_benchmark.records import comparability


def test_what_a_cell_could_not_find_out_disagrees_with_nothing():
    whole = make_record(
        make_cell(batch_size=1), model={"threads": 2, "cuda": None}, environment={"OMP_NUM_THREADS": "2"}
    )
    cut_off = make_record(
        make_cell(batch_size=2), outcome="oom", reason=OOM, model={}, environment={"OMP_NUM_THREADS": "2"}
    )
    assert comparability.disagreements([whole, cut_off]) == []
    assert comparability.variants([whole, cut_off]) == ["", ""]
    others = make_record(make_cell(batch_size=4), model={"threads": 4}, device={"name": "Other CPU"}, environment={})
    differences = comparability.disagreements([whole, cut_off, others])
    path = "results/box/tiny/prompt4-new8/fake/fp32/batch-4.json"
    assert differences[:3] == [
        f"tiny prompt4-new8: device differs: Some CPU in 2 cells; Other CPU in {path}",
        "tiny prompt4-new8: threads differs: 2 in 1 cells; 4 in " + path,
        f"tiny prompt4-new8: environment OMP_NUM_THREADS differs: 2 in 2 cells; not set in {path}",
    ]
    of_another_model = replace(others, cell=replace(others.cell, model={"name": "m2"}))
    assert comparability.disagreements([whole, of_another_model]) == []


def test_what_a_variant_chooses_is_no_circumstance():
    engine = make_record(make_cell(batch_size=1), model={"float32_matmul_precision": "highest", "tf32": False})
    settings = {"float32_matmul_precision": "high", "tf32": True}
    variant = make_record(make_cell(engine="fast"), model={**settings, "options": {"matmul_precision": "high"}})
    assert comparability.disagreements([engine, variant]) == []
    by_accident = make_record(make_cell(engine="fast"), model=settings)
    assert len(comparability.disagreements([engine, by_accident])) == 3  # two facts and the remedy
