#!/usr/bin/env python3
"""Measure one model in one command: write a configuration, and run the workflow with it.

    python scripts/bench.py PATH_OR_HUB_ID --engine hf ctranslate2 --precision fp32 int8 --batch 1 4 16

All that comes of it is kept in bench/MODEL: the configuration, records, tables and the page. The same command, or
snakemake with that configuration, measures only what is missing. It ends with the columns ranked by throughput. All
other arguments are those of snakemake: --dry-run only plans, with an estimate of the time.

exit status: that of snakemake; 1 where the model is not found
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from inference_benchmark import files
from inference_benchmark.cli import ProblemsError, run
from inference_benchmark.models.texts import PYTHON

REPO = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="PATH_OR_HUB_ID", help="a folder with config.json and weights, or an id")
    parser.add_argument("--engine", nargs="+", default=["hf"], help="as grid.engines of config.yaml (hf)")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"], help="as grid.precisions (fp32 bf16)")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 4, 16], metavar="N", help="batch sizes (1 4 16)")
    parser.add_argument("--prompt", type=int, default=32, metavar="N", help="tokens of each prompt (%(default)s)")
    parser.add_argument("--new", type=int, default=32, metavar="N", help="new tokens for each row (%(default)s)")
    parser.add_argument("--text", metavar="python|FILE", help="prompts are parts of it (by default random token ids)")
    parser.add_argument("--revision", help="of a model on the hub; its newest commit by default")
    parser.add_argument("--folder", type=Path, help="where everything is kept (bench/MODEL)")
    arguments, more = parser.parse_known_args()
    name, model = described(arguments.model, arguments.revision)
    folder = arguments.folder or Path("bench", name)
    configuration = folder / "config.yaml"
    text = as_yaml(settings(name, model, arguments))
    if not configuration.exists() or configuration.read_text(encoding="utf-8") != text:
        files.write(text, configuration, keep_earlier=True)
    print(f"{folder}: configuration (config.yaml), records, tables and page", flush=True)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPO / "Snakefile"), "--directory", str(folder)]
    command += ["--cores", "1", "--resources", "gpu=1", *more]
    os.execv(sys.executable, command)  # so that signals and the exit status are Snakemake's


def described(model: str, revision: str | None) -> tuple[str, dict[str, str]]:
    """The name of a model, and its entry in a configuration. Raises ProblemsError."""
    folder = Path(model).expanduser()
    if folder.exists():
        return named(folder.resolve().name), {"checkpoint": str(folder.absolute())}
    return named(model.replace("/", "--")), {"hub": model, "revision": revision or newest_commit(model)}


def named(text: str) -> str:
    """A name that a configuration takes for a model."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text).lstrip("._-")[:64] or "model"


def newest_commit(model: str) -> str:
    """Of a model on the hub. Raises ProblemsError."""
    import huggingface_hub

    try:
        return huggingface_hub.HfApi().model_info(model).sha
    except Exception as error:  # the hub client raises many kinds of network and repository errors
        why = next(iter(str(error).splitlines()), type(error).__name__)
        problem = f"is no folder, and the hub does not tell its newest commit ({why})"
        raise ProblemsError(f"{model}: {problem}; give a folder with config.json, or --revision") from None


def settings(name: str, model: dict[str, str], arguments: argparse.Namespace) -> dict[str, Any]:
    """The configuration: the same grid for whatever device there is."""
    workload = {"prompt_tokens": arguments.prompt, "new_tokens": arguments.new}
    if text := arguments.text:
        workload |= {"prompts": "text", "text": text if text == PYTHON else str(Path(text).expanduser().absolute())}
    grid = {
        "models": [name],
        "workloads": [workload],
        "engines": arguments.engine,
        "precisions": arguments.precision,
        "batch_sizes": arguments.batch,
        "memory_limit": None,
    }
    return {"models": {name: model}, "grid": {"cpu": grid, "cuda": grid}}


def as_yaml(document: dict[str, Any]) -> str:
    without_aliases = json.loads(json.dumps(document))
    return yaml.safe_dump(without_aliases, sort_keys=False, default_flow_style=None, allow_unicode=True)


if __name__ == "__main__":
    run(main)
