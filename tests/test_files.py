"""Small helpers with files."""

from __future__ import annotations

from inference_benchmark.files import files_beside


def test_files_beside_paths_are_listed_once_for_each_folder(tmp_path):
    here, missing = tmp_path / "here", tmp_path / "missing"
    (here / "folder").mkdir(parents=True)
    (here / "a").touch()
    (here / "link").symlink_to("a")
    (here / "dangling").symlink_to("nowhere")
    found = files_beside([f"{here}/a", f"{here}/b", f"{missing}/a"])
    assert {folder: sorted(paths) for folder, paths in found.items()} == {
        str(here): [f"{here}/a", f"{here}/link"],
        str(missing): [],
    }
