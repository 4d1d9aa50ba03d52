#!/usr/bin/env python3
"""Bring records and studies from other results folders into this one: a cluster's, a colleague's.

Each is checked, and goes where it says itself that it belongs. Two different records of one cell are a conflict:
they are named, and nothing is copied, unless --on-conflict says what to do. Of two ceilings of one machine the newer
are kept. Then run snakemake, which makes tables and report of all, and refuses by name what does not belong to the
configuration.
"""

import argparse
from pathlib import Path

from inference_benchmark.cli import fail, printable, run
from inference_benchmark.records.merge import carry_out, described, plan


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path, metavar="FROM", help="a results folder, with MACHINE below it")
    parser.add_argument("--into", type=Path, default=Path("results"), help="where they go (%(default)s)")
    parser.add_argument(
        "--on-conflict",
        choices=["refuse", "keep", "replace"],
        default="refuse",
        help="refuse (default): copy nothing; keep: what is here stays; replace: it is kept as *.superseded-TIME.json",
    )
    arguments = parser.parse_args()
    merge = plan(arguments.sources, arguments.into)
    for problem in merge.problems:
        fail(problem)
    refused = arguments.on_conflict == "refuse"
    for place, there, new in merge.conflicts if refused else ():
        fail(f"{place}: two records for one place: {described(there)}; {described(new)}")
    if merge.problems or (refused and merge.conflicts):
        return fail("nothing was copied" + (" (see --on-conflict)" if merge.conflicts else ""))
    carry_out(merge.copies)
    for note in merge.notes:
        print(printable(note))
    if arguments.on_conflict == "replace":
        carry_out({place: new for place, _, new in merge.conflicts})
    print(
        f"{len(merge.copies)} files copied, {merge.same} were here already, {len(merge.conflicts)} conflicts: "
        f"{'none' if not merge.conflicts else arguments.on_conflict}"
    )
    return 0


if __name__ == "__main__":
    run(main)
