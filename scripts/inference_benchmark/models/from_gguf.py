"""A checkpoint as engines load it, made of a GGUF file by transformers."""

import shutil
from pathlib import Path

from inference_benchmark.models import loading
from inference_benchmark.models.weights import CheckpointError


def make_checkpoint(file: Path, folder: Path) -> None:
    """Make a folder with the model of a GGUF file and its tokenizer. The weights are in fp32, the values that those of
    the file stand for. Raises CheckpointError if transformers cannot read it, and OSError."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    whole = {"gguf_file": file.name, "dtype": torch.float32, "quantization_config": GgufConfig(dequantize=True)}
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        stored = loading.whole_model(AutoModelForCausalLM, file.parent, **whole)
        # transformers saves no model that it has read from GGUF.
        sizes = {name: value for name, value in stored.config.to_dict().items() if name != "quantization_config"}
        model = AutoModelForCausalLM.from_config(type(stored.config)(**sizes), dtype=torch.float32)
        model.load_state_dict(stored.state_dict())
    except (CheckpointError, OSError):
        raise
    except Exception as error:  # it raises many kinds of errors for what it does not support
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise CheckpointError(f"{file}: transformers cannot make a checkpoint of it: {reason}") from None
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    unfinished.rename(folder)
