#!/usr/bin/env python3
"""Compare the answers of one engine and precision with those of hf in fp32, and write how far they are apart.

Exits 124 where the time was up, and 1 on any other end; then there is no file.
"""

from __future__ import annotations

import sys

from inference_benchmark.experiment.studies import ColumnStudy
from inference_benchmark.measure.command import main
from inference_benchmark.measure.study import conduct
from inference_benchmark.records import study_files
from inference_benchmark.render.one_line import study_text

if __name__ == "__main__":
    sys.exit(main(__doc__, ColumnStudy.from_json, conduct, study_files.write, study_text))
