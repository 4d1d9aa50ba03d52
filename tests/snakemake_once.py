"""Once imported, Snakemake has looked for its plugins, and the schema of the configuration is compiled: a quarter of what
a run takes that only plans."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import fastjsonschema
import yaml
from snakemake.cli import get_argument_parser

from inference_benchmark.experiment.variants import with_names

_compile = fastjsonschema.compile


@cache
def _compiled(schema: str, use_default: bool) -> Any:
    return _compile(json.loads(schema), use_default=use_default)


fastjsonschema.compile = lambda schema, use_default: _compiled(json.dumps(schema), use_default)
_text = (Path(__file__).resolve().parents[1] / "config.schema.yaml").read_text()
fastjsonschema.compile(with_names(yaml.safe_load(_text)), use_default=False)
get_argument_parser()
