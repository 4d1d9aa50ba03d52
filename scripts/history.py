#!/usr/bin/env python3
"""Show result sets over time: the throughput of every cell, and the steps in it with what changed there.

Each is a folder with the records of one machine (results/MACHINE), or the summary.csv of a run with its provenance.json
beside it. With --git RANGE each is such a folder of a repository, as it was at every commit that changed its records:

    python scripts/history.py --git v1.0..HEAD results/MACHINE --html history.html

exit status: 0; 1 where something cannot be used.
"""

import argparse
import tempfile
from pathlib import Path

from inference_benchmark import files
from inference_benchmark.cli import add_template, run
from inference_benchmark.compare import commits, history
from inference_benchmark.render import history as view
from inference_benchmark.render.page import render


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS", help="result sets, in any order")
    parser.add_argument("--git", metavar="RANGE", help="commits to take RESULTS, a folder of a repository, from")
    parser.add_argument("--html", type=Path, metavar="FILE", help="where the page goes")
    add_template(parser, "history.html.j2")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        paths = [(str(path), path) for path in arguments.results]
        if arguments.git:
            paths = [each for _, path in paths for each in commits.extracted(path, arguments.git, Path(scratch))]
        entries = history.load(paths)
    cells = history.histories_of(entries)
    steps = history.steps_in(cells)
    summary = f"Result sets: {len(entries)}; cells over time: {len(cells)}; steps: {len(steps)}."
    if arguments.html:
        page = render(
            arguments.template,
            summary=summary,
            steps=view.step_rows(steps),
            step_headings=view.STEP_HEADINGS,
            sections=list(view.sections(entries, cells, steps)),
            entries=view.entry_rows(entries),
            entry_headings=(*view.ENTRY_HEADINGS, *view.FACTS),
            notes=[(entry.name, note) for entry in entries for note in entry.results.notes],
        )
        files.write(page, arguments.html)
    print(summary)
    for entry in entries:
        print(f"{view.entry_name(entry)}: {entry.name}")
    for where, before, after, ratio, interval, changed in view.step_rows(steps):
        print(f"{where}: {ratio} ({interval}) from {before} to {after}: {changed}")
    if arguments.html:
        print(f"Page: {arguments.html}")


if __name__ == "__main__":
    run(main)
