#!/usr/bin/env python3
"""Collect the records and studies of an experiment into summary.csv, refusing by name what is none of it."""

from __future__ import annotations

import argparse
import gc
import json
from pathlib import Path

from inference_benchmark import files
from inference_benchmark.cli import fail, run
from inference_benchmark.experiment.cells import CellError, Experiment
from inference_benchmark.experiment.freshness import inputs_digest
from inference_benchmark.records.collect import CollectError, load_records, provenance_of
from inference_benchmark.records.summary import summarise


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", required=True, type=Path, metavar="FILE", help="as Snakemake writes it")
    parser.add_argument("--summary", required=True, type=Path, help="where the CSV goes")
    parser.add_argument("--provenance", required=True, type=Path, help="where the facts of the records go, as JSON")
    arguments = parser.parse_args()
    gc.disable()  # all that is read is needed to the end
    try:
        experiment = Experiment.from_json(arguments.experiment.read_text())
        records, studies = load_records(experiment)
    except CellError as error:
        return fail(str(error))
    except CollectError as error:
        for problem in error.problems:
            fail(problem)
        return fail(
            "nothing was changed. To make these files again, each old one kept beside the new: "
            "snakemake --forcerun PATH ..."
        )
    files.write(summarise(records, studies).to_csv(index=False), arguments.summary)
    provenance = {"inputs_sha256": inputs_digest(experiment)} | provenance_of(experiment, records)
    files.write(json.dumps(provenance, indent=1) + "\n", arguments.provenance)
    return 0


if __name__ == "__main__":
    run(main)
