#!/usr/bin/env python3
"""Do one study and write its record: the ceilings of the machine, the largest batch that fits, or how answers differ.

Exits with 124 if the time was up, and with 1 for any other end without a record.
"""

from __future__ import annotations

import sys

from inference_benchmark.experiment.studies import study_from_json
from inference_benchmark.measure.command import main
from inference_benchmark.measure.run import run_study
from inference_benchmark.render.one_line import study_text

if __name__ == "__main__":
    sys.exit(main(__doc__, "--study", study_from_json, run_study, study_text))
