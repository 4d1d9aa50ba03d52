"""config.yaml -> Plan. Every problem is found at once, each in one line for a person."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastjsonschema

from inference_benchmark.experiment.config_errors import ConfigError, explain
from inference_benchmark.experiment.config_file import not_plain, repeated_keys
from inference_benchmark.experiment.contradictions import Soundness, contradictions, unusable_paths
from inference_benchmark.experiment.defaults import with_defaults
from inference_benchmark.experiment.plan import Plan
from inference_benchmark.experiment.resolve import history, resolve
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.experiment.variants import with_names
from inference_benchmark.models import families
from inference_benchmark.models.weights import CheckpointError

if TYPE_CHECKING:
    import jsonschema


def load(config: Mapping[str, Any], schema: Mapping[str, Any], files: Sequence[Path] = (), code: Path = Path()) -> Plan:
    """What a configuration describes, with the schema's defaults for what it leaves out.

    files: the YAML files that the configuration was merged from, searched for keys given twice. code: the folder of
    the project, where a baseline is looked for that is not in the working directory. Raises ConfigError with all
    problems.
    """
    problems = [line for path in files for line in repeated_keys(path)]
    if unusable := list(not_plain(config)):
        raise ConfigError(problems + unusable)
    schema = with_names(schema)
    config = with_defaults(config, schema)
    errors = _schema_errors(config, schema)
    problems += [line for error in errors for line in explain(error, schema)]
    problems += unusable_paths(code, files) if isinstance(config["machines"], dict) else ()
    try:
        families.names()
    except CheckpointError as error:  # transformers is installed, and does not answer
        raise ConfigError([*problems, f"models: {error}"]) from None
    problems += contradictions(config, Soundness(errors))
    if not errors:
        experiment, checkpoints, locks, texts = resolve(config, code, problems)
        earlier = history(config, code, problems)
    if errors or problems:
        raise ConfigError(problems)
    machines, watch = config["machines"] or {}, config["watch"]
    each = [replace(experiment, machine=label, device_name=part["device_name"]) for label, part in machines.items()]
    return Plan(
        experiments=tuple(each or [experiment]),
        watch=Supervision(
            timeout_s=watch["timeout_seconds"],
            sample_hz=watch["sample_hz"],
            exclusive=watch["exclusive"],
            patience_s=watch["patience_seconds"],
            max_retakes=watch["max_retakes"],
        ),
        slurm={label: machine["slurm"] for label, machine in machines.items()},
        locks=locks,
        checkpoints=checkpoints,
        texts=texts,
        history=earlier,
    )


def _schema_errors(config: Mapping[str, Any], schema: Mapping[str, Any]) -> list[jsonschema.ValidationError]:
    """All that breaks the schema, in the order of the keys."""
    # Each start of Snakemake pays for this: fastjsonschema says yes in a fraction of the time that
    # jsonschema takes to be imported, but names one error only, and takes 1.0 for an integer.
    with suppress(fastjsonschema.JsonSchemaException):
        fastjsonschema.compile(schema, use_default=False)(config)
        if not _holds_whole_float(config):
            return []
    import jsonschema

    types = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    keywords = {"pattern": _whole_pattern}
    validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, keywords, type_checker=types)(schema)
    return sorted(validator.iter_errors(config), key=lambda error: [str(part) for part in error.absolute_path])


def _whole_pattern(validator, pattern: str, text: Any, sub: Mapping[str, Any]) -> Iterator[jsonschema.ValidationError]:
    """As fastjsonschema and ECMAScript read a pattern: ``$`` is the end, and not the place before a last line break."""
    import jsonschema

    if isinstance(text, str) and not re.search(pattern.replace("$", r"\Z"), text):
        yield jsonschema.ValidationError(f"{text!r} does not match {pattern!r}")


def _holds_whole_float(value: Any) -> bool:
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return (isinstance(value, float) and value.is_integer()) or any(map(_holds_whole_float, parts))
