"""llama.cpp's perplexity of a text, as its tool has it (tools/perplexity/perplexity.cpp) with the tool's settings.

The Python of the engine's environment runs it, with a checkpoint, a precision, a file of text and a number of tokens.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import llama_cpp
import numpy

from inference_benchmark.engines.llama_cpp_files import written
from inference_benchmark.models import texts


def perplexity(file: Path, windows: numpy.ndarray) -> float:
    """Of the tokens in the second half of each window, by the logits of whole windows."""
    n_tokens, nll = windows.shape[1], []
    first = n_tokens // 2
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(bytes(file), llama_cpp.llama_model_default_params())
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = n_tokens
    context = llama_cpp.llama_init_from_model(model, parameters)
    batch = llama_cpp.llama_batch_init(n_tokens, 0, 1)
    batch.n_tokens = n_tokens
    for window in windows.tolist():
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        for n, token in enumerate(window):
            batch.token[n], batch.pos[n], batch.n_seq_id[n], batch.seq_id[n][0] = token, n, 1, 0
            batch.logits[n] = n >= first
        assert llama_cpp.llama_decode(context, batch) == 0
        for n in range(first, n_tokens - 1):
            found = llama_cpp.llama_get_logits_ith(context, n)
            logits = numpy.ctypeslib.as_array(found, shape=(vocabulary,)).astype(numpy.float64)
            nll.append(numpy.logaddexp.reduce(logits) - logits[window[n + 1]])
    return math.exp(sum(nll) / len(nll))


if __name__ == "__main__":
    checkpoint, precision, text, n_tokens = sys.argv[1:]
    windows = texts.windows(Path(text), Path(checkpoint), int(n_tokens))
    print(perplexity(written(Path(checkpoint), precision), windows))
