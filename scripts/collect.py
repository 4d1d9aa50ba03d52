#!/usr/bin/env python3
"""Collect the records and studies of an experiment into summary.csv, refusing by name what does not belong to it."""

import argparse
import gc
import json
from pathlib import Path

from inference_benchmark import files
from inference_benchmark.cli import run
from inference_benchmark.experiment.experiment import Experiment
from inference_benchmark.experiment.freshness import digests
from inference_benchmark.records.collect import CollectError, collect, provenance_of
from inference_benchmark.records.results import cell_results, left_out
from inference_benchmark.results.summary_csv import to_csv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", required=True, type=Path, metavar="FILE", help="as Snakemake writes it")
    parser.add_argument("--summary", required=True, type=Path, help="where the CSV goes")
    parser.add_argument("--provenance", required=True, type=Path, help="where the facts of the records go, as JSON")
    arguments = parser.parse_args()
    gc.disable()  # everything that is read is needed to the end
    experiment = Experiment.from_json(arguments.experiment.read_text(encoding="utf-8"))
    try:
        collection = collect(experiment)
    except CollectError as error:
        # Snakemake has removed the summary before this. If it kept it (update), it would never collect again.
        remedy = (
            "there is no summary until this is resolved; tables and report stay as they were. "
            "To measure again, keeping each old record: snakemake --forcerun PATH ..."
        )
        raise CollectError(*error.problems, remedy) from None
    records = list(collection.records.values())
    results = [*cell_results(records, collection.studies), *left_out(experiment)]
    files.write(to_csv(results), arguments.summary)
    provenance = {"inputs_sha256": digests(experiment).inputs} | provenance_of(experiment, records)
    files.write(json.dumps(provenance, indent=1) + "\n", arguments.provenance)


if __name__ == "__main__":
    run(main)
