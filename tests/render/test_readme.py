"""The block of a README that is made from results."""

from __future__ import annotations

import pytest

from inference_benchmark.render.readme import RESULTS, MarkerError, insert

BEGIN, END = RESULTS


def test_readme_block_replaces_only_what_is_between_the_markers():
    readme = f"# Title\n{BEGIN}\nold\n{END}\nafter\n"
    assert insert(readme, "new\n") == f"# Title\n{BEGIN}\nnew\n{END}\nafter\n"
    assert insert(insert(readme, "new"), "new") == insert(readme, "new")


@pytest.mark.parametrize("readme", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_readme_without_one_place_for_the_results_is_refused(readme):
    with pytest.raises(MarkerError):
        insert(readme, "new")
