"""Loads a checkpoint with transformers, whole or not at all. Run as a module, it tries that without memory for weights.

transformers draws the weights that a checkpoint lacks, leaves out those that the model lacks, and only logs both.
"""

import hashlib
import json
import logging
import re
import sys
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from inference_benchmark.models import families, weights
from inference_benchmark.models.cache import REFUSED, RefusedError, cache_root, made_once
from inference_benchmark.models.weights import CheckpointError

_REMEDY = "transformers would draw what is missing; save the model again: of a compiled or wrapped one, what is inside"


def config_of(folder: Path | str) -> Any:
    """The configuration of a checkpoint, as transformers has it."""
    from transformers import AutoConfig

    return without_padding(AutoConfig.from_pretrained(folder))


def without_padding(config: Any) -> Any:
    """A configuration of transformers, its padding id set aside if it is outside the vocabulary: torch makes no
    embedding with such an id, and no prompt is padded."""
    text = config.get_text_config(decoder=True)
    padding, size = (getattr(text, name, None) for name in ("pad_token_id", "vocab_size"))
    if padding is not None and size and not -size <= padding < size:
        text.pad_token_id = None
    return config


def whole_model(class_: Any, folder: Path | str, **arguments: Any) -> Any:
    """The model of a checkpoint, by from_pretrained of a class of transformers. Raises CheckpointError, which names the
    weights, if some of the model are missing, or some of the checkpoint would be left out or do not fit."""
    model, report = class_.from_pretrained(folder, output_loading_info=True, ignore_mismatched_sizes=True, **arguments)
    missing, unexpected = report["missing_keys"], report["unexpected_keys"]
    problems = {
        "missing": sorted(missing),
        # Where some are missing, these show the names that they have in place of theirs.
        "not in the model": sorted(unexpected if missing else _of_what_generates(model, unexpected)),
        # transformers 4 names them only.
        "of another size": sorted(
            each if isinstance(each, str) else _sizes(*each) for each in report["mismatched_keys"]
        ),
    }
    if found := "; ".join(f"{what}: {weights.some(names)} ({len(names)})" for what, names in problems.items() if names):
        raise CheckpointError(f"{folder}: the weights are not those of a {type(model).__name__}; {found}; {_REMEDY}")
    return model


def _sizes(name: str, stored: Sequence[int], wanted: Sequence[int]) -> str:
    return f"{name} ({' x '.join(map(str, stored))}, not {' x '.join(map(str, wanted))})"


def _of_what_generates(model: Any, names: Collection[str]) -> Iterator[str]:
    """Those of the names, none of which the model has, that are in one of its modules or blocks: of another layer, say.
    Others do not generate: masks and angles that older versions saved, and heads for other tasks."""
    own = {_kind(name) for name in model.state_dict()}
    own |= {kind.removeprefix(f"{model.base_model_prefix}.") for kind in own}
    modules = {kind.rpartition(".")[0] for kind in own}
    blocks = {kind.partition(".*.")[0] for kind in own if ".*." in kind}
    for name in names:
        module, _, last = (kind := _kind(name)).rpartition(".")
        # GPTQ saves a bias of zeros with layers that have none.
        is_of_a_module = module in modules and f"{module}.qweight" not in own
        block, is_in_a_block, _ = kind.partition(".*.")
        if is_of_a_module or (is_in_a_block and block in blocks and last == "weight"):
            yield name


def _kind(name: str) -> str:
    """The name of a weight without the numbers of layers and experts."""
    return re.sub(r"\.\d+(?=\.)", ".*", name)


# -- before any job --------------------------------------------------------------------------------------


def check(folder: Path, files: weights.Weights) -> None:
    """Raises CheckpointError, as whole_model would, if the headers of a checkpoint that is not quantised show that.
    Asks transformers in a process of its own, once for each checkpoint. Other failures are left to the jobs."""
    if files.format != "safetensors" or not families.installed():
        return
    read = [path.read_bytes() for path in (folder / "config.json", Path(__file__))]
    key = [families.installation(), *read, sorted(weights.layout(files).items())]
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    start = f"Asking transformers whether {folder} has the weights of its model, once"
    try:
        made_once(cache_root() / "whole" / digest, __name__, {"checkpoint": str(folder)}, "no answer", start)
    except RefusedError:
        raise
    except CheckpointError as error:
        print(f"{folder}: whether it has the weights of its model is not known yet: {error}", file=sys.stderr)


def refuse_parts(folder: Path | str) -> None:
    """Raises CheckpointError as whole_model does, but needs no memory for weights. Other failures are left to it."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        config = config_of(folder)
        whole_model(AutoModelForCausalLM, folder, config=config, device_map={"": "meta"}, attn_implementation="eager")
    except CheckpointError:
        raise
    except Exception as error:  # libraries raise many kinds of errors for models that they do not support
        logging.getLogger(__name__).info("%s: %s", folder, error)


def main(request: str) -> int:
    """request: JSON with checkpoint and output, a folder that does not exist."""
    warnings.simplefilter("ignore")
    logging.disable()
    arguments = json.loads(request)
    try:
        refuse_parts(arguments["checkpoint"])
    except CheckpointError as error:
        print(error)
        return REFUSED
    Path(arguments["output"]).mkdir()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
