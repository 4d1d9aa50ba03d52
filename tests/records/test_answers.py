"""In fp32, cells with other answers than those of hf are flagged wherever digests or a comparison show it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_up import OLD, make_ceilings, make_cell, make_oom, make_record, measurement

from inference_benchmark.experiment.studies import ColumnStudy
from inference_benchmark.records import answers, results
from inference_benchmark.records.record import Record, StudyRecord

SAME, OTHER = "a" * 64, "b" * 64


def record_of(engine: str, size: int, digest: str = SAME, precision: str = "fp32", **changes) -> Record:
    cell = make_cell(engine=engine, batch_size=size, precision=precision, **changes)
    return make_record(cell, tokens_sha256=[digest])


def comparison_of(record: Record, token_agreement: float, **changes) -> StudyRecord:
    result = {
        "rows": 8, "steps": 8, "token_agreement": token_agreement, "first_difference": [None] * 8,
        "next_token_agreement": 1.0, "logits_error": {"mean": 0.2, "max": 0.3}, "kl_nats": {"mean": None, "max": None},
    }  # fmt: skip
    study = ColumnStudy.of("divergence", record.cell)
    return replace(make_ceilings(), study=study, results=(result,), **changes)


def differing(records: list[Record], *studies: StudyRecord) -> dict[tuple[str, int], str]:
    found = answers.differing(records, {study.study.path: study for study in studies})
    return {(r.cell.engine, r.cell.batch_size): found[r.cell.path] for r in records if r.cell.path in found}


REFERENCES = [record_of("hf", size) for size in (1, 2)]


def test_a_cell_with_other_digests_is_flagged_and_one_with_the_same_is_not():
    found = differing([*REFERENCES, record_of("hf-static", 1, OTHER), record_of("hf-static", 2)])
    assert found == {
        ("hf-static", 1): "the answers are not those of hf in fp32 to the same prompts: "
        "digests bbbbbbbbbbbb and aaaaaaaaaaaa"
    }


def test_a_cell_without_a_reference_shares_the_verdict_on_its_column():
    column = [record_of("hf-static", 1, OTHER), record_of("hf-static", 4, OTHER), record_of("ctranslate2", 4, OTHER)]
    out_of_memory = make_oom(make_cell(engine="hf", batch_size=4), tokens_sha256=[])
    found = differing([*REFERENCES, out_of_memory, *column])
    assert set(found) == {("hf-static", 1), ("hf-static", 4)}
    assert found["hf-static", 4] == "the answers of batch 1 in this column are not those of hf in fp32"


def test_a_comparison_is_about_every_cell_of_its_column():
    column = [record_of("ctranslate2", size) for size in (1, 2, 4)]
    words = "46.0% of the tokens are those of hf in fp32, logits error 0.2"
    assert differing([*REFERENCES, *column], comparison_of(column[0], 0.46)) == {
        ("ctranslate2", size): words for size in (1, 2, 4)
    }
    assert differing([*REFERENCES, *column], comparison_of(column[0], 1.0)) == {}
    other_machine = comparison_of(column[0], 0.46, device={"kind": "cpu", "name": "Other"})
    assert differing([*REFERENCES, *column], other_machine) == {}


def test_a_reference_that_does_not_agree_with_itself_is_flagged():
    words = "93.0% of the tokens are those of hf in fp32, logits error 0.2"
    assert differing(REFERENCES, comparison_of(REFERENCES[0], 0.93)) == {("hf", 1): words, ("hf", 2): words}
    assert differing(REFERENCES, comparison_of(REFERENCES[0], 1.0)) == {}


@pytest.mark.parametrize(
    "record",
    [
        record_of("hf-static", 1, OTHER, precision="bf16"),
        record_of("hf", 1, OTHER, precision="fp32", measurement=measurement(seed=7)),
        record_of("hf-static", 1, OTHER, measurement=measurement(seed=7)),
        record_of("fake", 1, OTHER),
        replace(record_of("hf-static", 1, OTHER), software={"python": "3.11", "torch": "2.12.0"}),
        make_record(make_cell(engine="hf-static", batch_size=1), tokens_sha256=[]),
    ],
    ids=["another precision", "the reference", "other prompts", "made-up answers", "other software", "no digest"],
)
def test_what_need_not_agree_is_not_flagged(record):
    assert differing([*REFERENCES, record]) == {}


def test_answers_that_change_from_call_to_call_agree_where_one_of_them_does():
    moody = make_record(make_cell(engine="hf-static", batch_size=1), tokens_sha256=[OTHER, SAME])
    assert differing([*REFERENCES, moody]) == {}


def test_the_summary_has_the_flag_and_its_evidence():
    found = results.cell_results([*REFERENCES, record_of("hf-static", 1, OTHER)])
    assert [each.flags for each in found] == [(), (), ("answers-differ",)]
    assert found[2].notes.endswith("digests bbbbbbbbbbbb and aaaaaaaaaaaa")


def test_the_reference_is_that_of_the_same_environment():
    old = [record_of(engine, 1, OTHER, environment=OLD) for engine in ("hf", "hf-static")]
    assert differing([*REFERENCES, *old]) == {}
    assert differing([*REFERENCES, record_of("hf", 1, SAME, environment=OLD), old[1]]).keys() == {("hf-static", 1)}
