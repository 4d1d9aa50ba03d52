#!/usr/bin/env python3
"""Measure what this machine does at its best, and write all samples.

Exits 124 where the time was up, and 1 on any other end; then there is no file.
"""

from __future__ import annotations

import sys

from inference_benchmark import study_files
from inference_benchmark.command import main
from inference_benchmark.conduct import conduct
from inference_benchmark.studies import Ceilings
from inference_benchmark.words import study_text

if __name__ == "__main__":
    sys.exit(main(__doc__, Ceilings.from_json, conduct, study_files.write, study_text))
