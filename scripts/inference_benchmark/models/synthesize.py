"""Draws a model's weights from a seed and saves them as a checkpoint. Runs as a separate process.

With transformers' own initialisation, a model with tied embeddings repeats its last prompt token forever: that
token's embedding dominates the residual stream. Then any two engines agree on every token. Here each linear layer
keeps the scale of its input (standard deviation gain / sqrt(fan in)), and the embeddings in the residual stream are
small, so that the blocks decide the next token.
"""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference_benchmark.models import families
from inference_benchmark.models.architecture import is_read, size

#: Standard deviation of a linear layer's outputs for inputs of unit scale. Above 1, attention is sharp enough to
#: depend on the prompt. Far above 1, rounding dominates in half precision.
LINEAR_GAIN = 2.0
#: Standard deviation of the logits; as peaked as in a trained model.
LOGIT_SCALE = 3.0
#: Scale of the embeddings in the residual stream if a norm follows them (BLOOM).
EMBEDDING_SCALE = 0.02


def synthesize(architecture: Mapping[str, Any], seed: int):
    """A causal language model of these sizes in fp32, with weights drawn from the seed. Raises ValueError if
    transformers does not know the family or a size. architecture: as in Cell.model."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    sizes = {key: value for key, value in architecture.items() if key != "model_type"}
    if unknown := [key for key in sizes if not is_read(architecture["model_type"], key)]:
        raise ValueError(f"{architecture['model_type']} has no size named {', '.join(unknown)}")
    # Token ids, configured or by default, may be outside a small vocabulary. They have no effect on the work.
    family = families.family(architecture["model_type"]) or families.Family()
    vocab_size = size(architecture, "vocab_size") or math.inf
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        ids = sizes.get(name, family.defaults.get(name))
        if any(each >= vocab_size for each in (ids if isinstance(ids, list) else [ids]) if each is not None):
            sizes[name] = None if "None" in family.kinds.get(name, ()) else 0
    config = AutoConfig.for_model(architecture["model_type"], **sizes)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    embedding_std = LOGIT_SCALE * model.get_input_embeddings().embedding_dim ** -0.5
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, (torch.nn.Linear, Conv1D)):
                fan_in = module.nx if isinstance(module, Conv1D) else module.in_features
                module.weight.normal_(0, LINEAR_GAIN * fan_in**-0.5, generator=generator)
                # Each output ignores the mean of its inputs. After a GELU this mean is similar for all tokens. It
                # would grow from layer to layer until all tokens get the same output.
                module.weight.sub_(module.weight.mean(dim=0 if isinstance(module, Conv1D) else 1, keepdim=True))
            elif isinstance(module, torch.nn.Embedding):
                module.weight.normal_(0, embedding_std, generator=generator)
            elif "embeddings_layernorm" in name:
                module.weight.fill_(EMBEDDING_SCALE)
        # Last, because a tied output layer shares its weights with the input embedding.
        model.get_output_embeddings().weight.normal_(0, embedding_std, generator=generator)
    return model.eval()


def main(request: str) -> int:
    """request: JSON with architecture, seed and output, a folder that does not exist."""
    arguments = json.loads(request)
    print(f"drawing the weights of {arguments['architecture']} from seed {arguments['seed']}", file=sys.stderr)
    try:
        model = synthesize(arguments["architecture"], arguments["seed"])
    except Exception as error:  # transformers raises many kinds of errors for invalid sizes
        print(f"cannot build a model of these sizes: {error}", file=sys.stderr)
        return 1
    model.save_pretrained(Path(arguments["output"]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
