"""Which exceptions are a library's refusal of a combination, and which are faults of something else."""

from __future__ import annotations

import pytest
import torch

from inference_benchmark import engines
from inference_benchmark.engines.refusal import UnsupportedError, is_refusal, words_of


def raiser(module: str):
    """A function of a module of this name that raises what it is given."""
    namespace = {"__name__": module}
    exec("def fail(error): raise error", namespace)
    return namespace["fail"]


def caught(call, *arguments) -> Exception:
    try:
        call(*arguments)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("module", "error", "refused"),
    [
        ("transformers.models.x", AttributeError("'XConfig' object has no attribute 'y'"), True),
        ("ctranslate2.converters.transformers", KeyError("type"), True),
        ("bitsandbytes.autograd", AssertionError(), True),
        ("torch.nn.functional", NotImplementedError("\"addmm\" not implemented for 'Half'"), True),
        ("inference_benchmark.engines.hf_facts", AttributeError("'tuple' object has no attribute 'dtype'"), False),
        ("inference_benchmark.engines.hf", UnsupportedError("no causal language model"), True),
        ("transformers.modeling_utils", OSError("no file named model.safetensors"), False),
        ("transformers.utils.import_utils", ImportError("requires the einops library"), False),
        ("torch.cuda", RuntimeError("CUDA error: device-side assert triggered"), False),
        ("torch.nn.functional", RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False),
        ("torch._inductor.cpp_builder", RuntimeError("CppCompileError: C++ compile error"), False),
        ("torch.nn.functional", IndexError("index out of range in self"), False),
    ],
)
def test_a_fault_in_the_code_of_a_library_is_a_refusal(module, error, refused):
    assert is_refusal(caught(raiser(module), error)) is refused


def test_the_innermost_frame_decides():
    product = caught(torch.nn.Linear(2, 3), torch.ones(1, 4))
    assert is_refusal(product)
    assert words_of(product).startswith("RuntimeError: mat1 and mat2 shapes cannot be multiplied")
    assert not is_refusal(caught(engines.create, "no such engine"))


def test_words_are_one_line():
    assert words_of(ValueError("one\n  two")) == "ValueError: one two"
    assert words_of(UnsupportedError("as the library says")) == "as the library says"
