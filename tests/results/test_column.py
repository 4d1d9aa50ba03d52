"""The names of a column, each made in one place."""

from __future__ import annotations

from dataclasses import replace

from made_up import OLD, make_cell

from inference_benchmark.results.column import Column, batch_label, headings, short_names

COLUMN = Column("bloom-1b3", 9, 100, "hf", "bf16", base_engine="hf")


def test_a_column_is_named_by_what_it_is():
    assert COLUMN.label == "bloom-1b3 prompt9-new100 hf bf16"
    assert COLUMN.path == "bloom-1b3/prompt9-new100/hf/bf16"
    assert batch_label(COLUMN.name, 8) == "hf bf16 batch 8"
    of_text = replace(COLUMN, prompts="text")
    assert (of_text.label, of_text.path) == (
        "bloom-1b3 prompt9-new100-text hf bf16",
        "bloom-1b3/prompt9-new100-text/hf/bf16",
    )
    old = replace(COLUMN, environment="old", split="torch 2.12")
    assert (old.path, old.name) == ("old/bloom-1b3/prompt9-new100/hf/bf16", "old hf bf16 torch 2.12")


def test_what_published_figures_do_not_say_is_left_out():
    assert Column("", None, 100, "", "fp32", environment="").label == "new100 fp32"
    assert Column("m", 9, None, "", "fp32").label == "m prompt9 fp32"


def test_a_heading_names_engine_and_environment_only_where_there_are_several():
    int8 = replace(COLUMN, precision="int8")
    assert headings([COLUMN, int8]) == {COLUMN: ("bf16",), int8: ("int8", "LLM.int8()")}
    sdpa = replace(COLUMN, engine="hf-sdpa", options=(("attention", "sdpa"),))
    assert headings([COLUMN, sdpa])[sdpa] == ("hf-sdpa", "attention sdpa", "bf16")
    assert short_names([COLUMN, sdpa]) == {COLUMN: "hf bf16", sdpa: "hf-sdpa bf16"}
    old = replace(COLUMN, environment="old")
    assert short_names([COLUMN, old, COLUMN]) == {COLUMN: "current bf16", old: "old bf16"}


def test_the_environment_that_an_engine_has_of_its_own_is_the_current_one():
    own = {"name": "openvino", "lock": "0" * 16}
    assert make_cell(engine="openvino", environment=own).column.environment == "current"
    assert make_cell(engine="openvino", environment=OLD).column.environment == "old"
