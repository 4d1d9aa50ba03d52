"""Variants of engines through real Snakemake."""

from __future__ import annotations

import pytest
from running import NOTHING, SUMMARY, Workspace, fake_grid


@pytest.fixture(scope="session")
def variant_once(shared_folder) -> Workspace:
    """An engine and a variant of it, all done; only to be looked at."""
    grid = fake_grid(engines=["fake", "fake-eager"], precisions=["fp32"], batch_sizes=[1, 2])
    variant = {"fake-eager": {"engine": "fake", "attention": "eager"}}
    return Workspace.run_once(shared_folder / "variant", grid, lambda config: config.update(engines=variant))


@pytest.fixture
def with_variant(variant_once, tmp_path) -> Workspace:
    """The same, to be changed."""
    return variant_once.copy(tmp_path)


def test_a_variant_is_measured_in_a_column_of_its_own_and_set_against_its_engine(with_variant):
    cell = with_variant.record("fp32", 1, engine="fake-eager")["cell"]
    assert (cell["engine"], cell["options"]) == ("fake-eager", {"engine": "fake", "attention": "eager"})
    assert "options" not in with_variant.record("fp32", 1)["cell"]
    text = (with_variant.folder / "results/box/tables.md").read_text()
    assert "Variants against their engine" in text
    assert "1.00 (1.00 to 1.00)" in text
    summary = (with_variant.folder / SUMMARY).read_text()
    assert "fake-eager,fp32,1,fake,attention eager," in summary
    assert with_variant.plan() == NOTHING


def test_an_edited_variant_is_measured_again_and_its_old_records_are_not_used(with_variant):
    with_variant.config["engines"]["fake-eager"]["attention"] = "sdpa"
    with_variant.save()
    assert with_variant.plan()["measure"] == 2
    for path in (with_variant.folder / ".snakemake").rglob("metadata"):
        path.rename(path.with_name("forgotten"))  # as in a clone
    assert with_variant.plan()["measure"] == 2
    with_variant.run(SUMMARY)
    assert with_variant.record("fp32", 1, engine="fake-eager")["cell"]["options"]["attention"] == "sdpa"
