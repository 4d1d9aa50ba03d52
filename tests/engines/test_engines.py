"""All engines generate the same tokens from the same weights, and describe what they did."""

from __future__ import annotations

import gc
import inspect
import os
import re
import shutil
import subprocess
import sys
import threading
import weakref
from itertools import product
from types import SimpleNamespace

import numpy
import pytest
import torch
from made_up import MODELS, make_cell
from real_engines import FORMS, load, load_from, prompts, weights
from running import ENGINES, REPO, convert, drawn, measure_cli, read_record
from transformers import LogitsProcessorList, StaticCache
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

from inference_benchmark import engines
from inference_benchmark.engines import hf_static
from inference_benchmark.engines.ctranslate2 import converted
from inference_benchmark.engines.refusal import UnsupportedError
from inference_benchmark.models.cache import RefusedError
from inference_benchmark.models.checkpoint import CheckpointError


@pytest.mark.parametrize(
    ("name", "family"),
    [*product(["ctranslate2"], MODELS), ("hf-continuous", "gpt2"), ("hf-continuous", "llama")],
)
def test_an_engine_gives_the_tokens_of_hf_in_fp32(name, family):
    engine, reference = load(name, family=family), load("hf", family=family)
    for rows, length, new_tokens in FORMS:
        ids = prompts(rows, length)
        expected = reference.generate(ids, new_tokens)
        assert (engine.generate(ids, new_tokens) == expected).all(), (rows, length, new_tokens)
    observed, facts = engine.observe(ids, new_tokens)
    assert (observed == expected).all()
    assert (facts["activations"], facts["non_finite_rows"]) == (["float32"], 0)


def test_hf_continuous_has_room_for_its_batch_and_no_thread_between_calls():
    def more() -> int:
        return len(set(threading.enumerate()) - threads)  # those of earlier tests may end

    engine, ids, threads = load("hf-continuous", family="llama"), prompts(3, 9), set(threading.enumerate())
    assert engine.describe()["attention"] == "sdpa"
    tokens, facts = engine.observe(ids, 8)
    # Keys and values of 2 heads of 32 numbers in 4 layers; and two pages that no row uses.
    assert facts["cache_reserved_bytes"] == (3 + 2) * 17 * 4 * 2 * 2 * 32 * 4
    found = {key: facts[key] for key in ("cache", "cache_page_tokens", "cuda_graphs", "asynchronous")}
    assert found == {
        "cache": "PagedAttentionCache", "cache_page_tokens": 17, "cuda_graphs": False, "asynchronous": False
    }  # fmt: skip
    manager, ended, in_thread = engine.manager, [], []
    threads_of_torch = engine.model.lm_head.register_forward_hook(lambda *_: in_thread.append(torch.get_num_threads()))
    assert (engine.generate_in_steps(ids, 8, lambda: ended.append(more())) == tokens).all()
    threads_of_torch.remove()
    assert ended == [1] * 8
    assert in_thread == [2] * 8, "those of the cell"
    assert (engine.generate(ids[:, :4], 1) == load("hf", family="llama").generate(ids[:, :4], 1)).all()
    assert engine.manager is manager
    assert more() == 0
    engine.generate(ids[:2], 8)
    assert engine.manager is not manager
    gone = weakref.ref(engine.manager.batch_processor.cache)
    engine.unload()
    assert gone() is None


def test_hf_continuous_raises_what_its_thread_met_and_goes_on():
    engine, ids = load("hf-continuous", family="llama"), prompts(3, 9)
    expected = engine.generate(ids, 4)
    shortage = RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")

    def fail(*_):
        raise shortage

    hook = engine.model.lm_head.register_forward_hook(fail)
    with pytest.raises(RuntimeError) as caught:
        engine.generate(ids, 4)
    assert caught.value is shortage
    assert engine.is_out_of_memory(caught.value)
    hook.remove()
    assert (engine.generate(ids, 4) == expected).all()


def test_hf_continuous_refuses_a_batch_that_is_not_one_in_every_step():
    engine, ids = load("hf-continuous", family="llama"), prompts(3, 9)
    engine.generate(ids[:, :5], 8)
    engine.room = (3, 9, 17)  # more than it has: prefill of 3 x 9 tokens takes a second step
    with pytest.raises(UnsupportedError, match="5 steps for 4 tokens: not all rows were in all of them"):
        engine.generate(ids, 4)


def test_hf_continuous_is_not_available_before_the_transformers_that_has_it(monkeypatch):
    engine = engines.create("hf-continuous")
    engine.start("cpu", 2, weights("llama"))
    assert engine.unsupported("fp32") is None
    module = sys.modules[type(engine).__module__]  # its transformers is not always the one that this file imported
    monkeypatch.setattr(module.transformers, "__version__", "5.16.4")
    assert engine.unsupported("fp32") == "hf-continuous needs transformers 5.17 or newer, and here is 5.16.4"


def test_hf_continuous_counts_the_cuda_graphs_that_transformers_keeps():
    engine = load("hf-continuous", family="llama")
    engine.generate(prompts(3), 4)
    assert "cuda_graphs_recorded" not in engine.compilation()
    engine.manager.continuous_batching_config.use_cuda_graph = True  # as on CUDA with flash attention
    engine.manager.batch_processor.inputs_and_outputs.set_graph(SimpleNamespace(reset=lambda: None))
    assert engine.compilation()["cuda_graphs_recorded"] == 1


def test_an_engine_can_end_right_after_a_call_in_steps():
    # Without switches between threads, that of CTranslate2 drops the callback after the engine is gone.
    code = f"""if True:
        import sys
        sys.path[:0] = {sys.path!r}
        from real_engines import load, prompts

        def in_steps():
            engine, marks = load("ctranslate2"), []
            engine.generate_in_steps(prompts(3), 4, lambda: marks.append(engine.mark()))
            return len(marks)

        sys.setswitchinterval(1)
        assert [in_steps() for _ in range(5)] == [4] * 5
    """
    done = ENGINES.run(["-c", code])
    assert done.returncode == 0, done.stderr


#: Every layer takes a while to compile.
ONE_LAYER = {"architecture": {**MODELS["bloom"], "n_layer": 1}, "seed": 0}


def test_hf_static_gives_the_tokens_of_hf_in_fp32_and_compiles_once_for_them():
    engine, reference = (load_from(drawn(ONE_LAYER), name) for name in ("hf-static", "hf"))
    before = engine.compilation()  # by other tests of this process
    # First prompts and answers of one length, as in a cell. At the end all other lengths, without compilation.
    ids = prompts(3, 9)
    expected = reference.generate(ids, 16)
    observed, facts = engine.observe(ids, 16)
    assert (observed == expected).all()
    assert facts["cache"] == "StaticCache"
    assert facts["activations"] == ["float32"], "prefill was observed"
    compiled = engine.compilation()
    assert compiled["graphs"] == before["graphs"] + 1
    assert compiled["seconds"] > before["seconds"]
    assert "why_not" not in compiled
    for _ in range(2):
        assert (engine.generate(ids, 16) == expected).all()
    engine.generate(ids, 1)
    assert engine.compilation() == compiled, "recompiled without hooks, or for 1 token"
    engine.generate_options["disable_compile"] = True
    for rows, length, new_tokens in FORMS:
        ids = prompts(rows, length)
        expected = reference.generate(ids, new_tokens)
        assert (engine.generate(ids, new_tokens) == expected).all(), (rows, length, new_tokens)


class LiveCaches:
    """Logits processor that notes, at every step, the static caches that are alive and where their keys are."""

    def __init__(self) -> None:
        self.counts, self.addresses = set(), set()

    def __call__(self, input_ids, scores):
        caches = [value for value in gc.get_objects() if type(value) is StaticCache]
        self.counts.add(len(caches))
        self.addresses |= {tuple(layer.keys.data_ptr() for layer in cache.layers) for cache in caches}
        return scores


@pytest.fixture
def _no_garbage_collection():
    """Garbage stays, as it does in a call that is over before Python looks for it. Objects of before are not listed."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


@pytest.mark.usefixtures("_no_garbage_collection")
def test_hf_static_holds_one_cache_at_the_same_addresses_in_all_calls_of_a_shape():
    torch._dynamo.reset()
    engine, ids = load_from(drawn(ONE_LAYER), "hf-static"), prompts(3, 9)
    before = engine.compilation()["graphs"]
    engine.observe(ids, 16)
    live = LiveCaches()
    engine.generate_options["logits_processor"] = LogitsProcessorList([live])
    for new_tokens in (16, 1, 16, 1):
        engine.generate(ids, new_tokens)
    assert engine.compilation()["graphs"] == before + 1
    assert live.counts == {1}, "a second cache was alive"
    assert len(live.addresses) == 1, "a CUDA graph would be recorded again"
    # Other shapes: the old cache is freed before the new one is made.
    engine.generate_options["disable_compile"] = True
    for rows, new_tokens in ((2, 16), (2, 24), (5, 4)):
        engine.generate(prompts(rows, 9), new_tokens)
    assert live.counts == {1}
    engine.release()
    assert not [value for value in gc.get_objects() if type(value) is StaticCache]


#: Families whose caches differ from those in MODELS: a sliding window, a state in place of keys.
OTHER_CACHES = {
    "mistral": {
        **{"model_type": "mistral", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2},
        **{"num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 1000, "sliding_window": 4},
    },
    "mamba": {"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 1000},
}


@pytest.mark.parametrize("family", [*MODELS, *OTHER_CACHES])
def test_a_used_static_cache_gives_the_tokens_of_a_new_one(family):
    folder = drawn({"architecture": {**MODELS, **OTHER_CACHES}[family], "seed": 0})
    engine, reference = load_from(folder, "hf-static"), load_from(folder, "hf")
    engine.generate_options["disable_compile"] = True
    cases = [(prompts(3, length), new_tokens) for length, new_tokens in ((9, 24), (9, 1), (20, 5), (2, 12), (9, 24))]
    for ids, new_tokens in cases:
        assert (engine.generate(ids, new_tokens) == reference.generate(ids, new_tokens)).all(), (ids.shape, new_tokens)


def test_hf_static_counts_the_cuda_graphs_that_torch_records_and_gives_up(monkeypatch):
    from torch._inductor import cudagraph_trees, cudagraph_utils

    engine = load("hf-static")
    assert "cuda_graphs_recorded" not in engine.compilation()
    monkeypatch.setattr(engine, "device", torch.device("cuda"))
    before = engine.compilation()
    # What torch does where it records a graph, and where it gives one up.
    record = cudagraph_trees.dynamo_timed_cudagraph
    assert '"CUDAGraphNode.record"' in inspect.getsource(cudagraph_trees.CUDAGraphNode)
    for _ in range(3):
        with record("CUDAGraphNode.record", None, None):
            pass
    cudagraph_utils.log_cudagraph_skip_and_bump_counter("made up")
    after = engine.compilation()
    assert after["cuda_graphs_recorded"] == before["cuda_graphs_recorded"] + 3
    assert after["cuda_graphs_skipped"] == before["cuda_graphs_skipped"] + 1


def test_hf_static_has_only_the_precisions_that_transformers_compiles():
    methods = {
        "int8": "bitsandbytes_8bit", "int8-threshold-0": "bitsandbytes_8bit", "nf4": "bitsandbytes_4bit",
        "int8-weight-only": "torchao", "int4-weight-only": "torchao", "gptq": "gptq", "awq": "awq",
    }  # fmt: skip
    every = engines.ENGINES["hf"].precisions
    compiled = {
        name for name in every if name not in methods or AUTO_QUANTIZER_MAPPING[methods[name]].is_compileable.fget(None)
    }
    assert engines.ENGINES["hf-static"].precisions == {name: every[name] for name in compiled}


def test_hf_static_runs_eagerly_where_there_is_no_compiler_and_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    engine = load("hf-static")
    engine.generate(prompts(1, 3), 4)
    why_not = "there is no C++ compiler (g++); install g++"
    assert engine.compilation()["why_not"] == why_not


@pytest.mark.parametrize(
    ("device", "command", "said", "expected"),
    [
        ("cpu", "CXX", None, "the compiler of cpu does not work: InvalidCxxCompiler: No working C++ compiler found in"),
        ("cuda", "CC", None, None),
        (
            "cuda",
            "CC",
            "0 active drivers\nThere should only be one.",
            "the compiler of cuda does not work: RuntimeError: 0 active drivers",
        ),
    ],
)
def test_a_compiler_that_does_not_work_is_found_out_before_loading(
    monkeypatch, tmp_path, device, command, said, expected
):
    """A compiler that always fails; and a stand-in for Triton, which only CUDA builds of torch bring along."""
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv(command, str(broken))

    class Active:
        def get_current_target(self):
            if said:
                raise RuntimeError(said)

    if device == "cuda":
        triton = SimpleNamespace(runtime=SimpleNamespace(driver=SimpleNamespace(active=Active())))
        monkeypatch.setitem(sys.modules, "triton", triton)
    with torch._inductor.config.patch({"cpp.cxx": (None, str(broken))}):  # read from CXX when torch is imported
        why_not = hf_static._why_no_compiler(torch.device(device))
    assert (why_not or "").startswith(expected or "")
    assert (why_not is None) == (expected is None)


@pytest.mark.parametrize(
    ("name", "precision"),
    [*product(["hf", "hf-continuous"], ["fp32", "bf16", "int8"]), ("ctranslate2", "fp32"), ("ctranslate2", "int8")],
)
def test_the_logits_of_an_engine_are_those_its_tokens_were_chosen_by(name, precision):
    engine, ids = load(name, precision, "llama" if name == "hf-continuous" else "bloom"), prompts(4, 9)
    tokens = engine.generate(ids, 12)
    logits = engine.next_token_logits(ids, tokens)
    assert logits.shape == (4, 12, 1000)
    assert logits.dtype == numpy.float32
    agreement = (logits.argmax(axis=-1) == tokens).mean()
    # ctranslate2 computes these logits in one pass over the whole sequence. In int8 the results then differ.
    assert agreement == 1 if (name, precision) != ("ctranslate2", "int8") else agreement > 0.6
    # Those of a text are computed row by row, by hf in one pass over all tokens.
    in_passes = numpy.stack([*engine.text_logits(ids, tokens)])
    assert in_passes.dtype == numpy.float32
    error = numpy.linalg.norm(in_passes - logits) / numpy.linalg.norm(logits)
    assert error < (1e-5 if precision == "fp32" else 0.1)
    # After other tokens, other tokens are chosen.
    other = engine.next_token_logits(ids, (tokens + 1) % 1000)
    assert (other[:, 0] == logits[:, 0]).all()
    assert not (other[:, 1:].argmax(axis=-1) == tokens[:, 1:]).all()


def test_shapes_are_the_same_for_every_engine_and_smaller_if_quantised():
    hf, ct2 = (load(name).describe() for name in ("hf", "ctranslate2"))
    assert hf["shapes"] == ct2["shapes"]
    assert hf["parameters"] == ct2["parameters"]
    in_8_bits = load("hf", "int8").describe()["shapes"]["matrices"]
    for matrix, quantised in zip(hf["shapes"]["matrices"], in_8_bits, strict=True):
        elements = matrix["inputs"] * matrix["outputs"]
        is_head = not matrix["every_position"]
        assert quantised["weight_bytes"] == (2 * elements if is_head else elements + 4 * matrix["outputs"])
        assert quantised["arithmetic"] == ("float16" if is_head else "int8")
    for matrix in load("hf", "nf4").describe()["shapes"]["matrices"][:-1]:
        elements = matrix["inputs"] * matrix["outputs"]
        assert matrix["weight_bytes"] == elements // 2 + 4 * elements // 64
        assert matrix["arithmetic"] == "bfloat16"


def test_converted_weights_are_cached_by_content(tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(weights(), copy)
    assert converted(weights()) == converted(copy)
    other = weights(seed=1)
    for folder in (weights(), other):
        convert(folder)
    assert converted(other) != converted(copy)


@pytest.mark.usefixtures("forked")
def test_a_refused_conversion_has_the_words_of_ctranslate2(tmp_path):
    folder = tmp_path / "x"
    shutil.copytree(weights(), folder)
    (folder / "config.json").write_text('{"model_type": "rwkv", "vocab_size": 10}')
    with pytest.raises(
        RefusedError, match=r"cannot convert this model: ValueError: No conversion is registered for .* Rwkv"
    ):
        converted(folder)


@pytest.mark.usefixtures("forked")
def test_a_conversion_that_fails_for_a_broken_file_is_no_refusal(tmp_path, capfd):
    folder = tmp_path / "x"
    shutil.copytree(weights(), folder)
    file = next(folder.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(
        CheckpointError, match="ctranslate2 could not convert the weights; see the message above"
    ) as caught:
        converted(folder)
    assert not isinstance(caught.value, RefusedError)
    assert "ctranslate2 cannot convert this model: SafetensorError" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "batch_size", "wide"),
    [
        (
            "ctranslate2",
            8192,
            {"model_type": "bloom", "hidden_size": 256, "n_head": 4, "n_layer": 1, "vocab_size": 20_000},
        ),
        # In its thread, for the logits.
        ("hf-continuous", 256, {**MODELS["llama"], "hidden_size": 32, "num_hidden_layers": 1, "vocab_size": 250_000}),
    ],
)
def test_an_engine_runs_out_of_real_memory(tmp_path, name, batch_size, wide):
    model = {"name": "wide", "architecture": wide, "seed": 0}
    cell = make_cell(engine=name, model=model, batch_size=batch_size, memory_limit_bytes=300_000_000)
    process = measure_cli(cell, tmp_path / "r.json")
    assert process.returncode == 0, process.stderr
    record = read_record(tmp_path / "r.json")
    assert (record["outcome"], record["reason"]["phase"]) == ("oom", "warm-up")


def test_a_precision_that_an_engine_does_not_have_is_a_record(tmp_path):
    process = measure_cli(make_cell(engine="ctranslate2", precision="nf4"), tmp_path / "r.json")
    assert process.returncode == 0, process.stderr
    record = read_record(tmp_path / "r.json")
    assert (record["outcome"], record["reason"]["message"]) == ("unsupported", "ctranslate2 has no nf4")


def test_the_reason_for_an_unsupported_precision_lists_the_supported_ones():
    engine = engines.create("ctranslate2")
    engine.start("cpu", 2, weights())
    reason = engine.unsupported("fp16")
    assert reason is None or re.fullmatch(r"ctranslate2 [\d.]+ has no float16 on this cpu; it has .*float32.*", reason)


def test_a_compiled_cell_reports_its_compile_time_separately(tmp_path):
    model = {"name": "small", "architecture": {**MODELS["bloom"], "n_layer": 1}, "seed": 0}
    cell = make_cell(engine="hf-static", model=model, memory_limit_bytes=400_000_000)
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    process = measure_cli(cell, tmp_path / "r.json", **cache)
    assert process.returncode == 0, process.stderr
    record = read_record(tmp_path / "r.json")
    assert record["outcome"] == "ok"
    compiled = record["model"]["compilation"]
    assert compiled["graphs"] >= 1
    assert compiled["graphs_from_cache"] == 0
    run = record["runs"][0]
    assert run["warmup_s"][0] > compiled["seconds"] > max(run["samples_s"])
    assert record["model"]["graphs_while_timed"] == 0
    assert len(run["tokens_sha256"]) == 1
    # What one process has compiled, the next one finds, and its record says so.
    assert measure_cli(cell, tmp_path / "again.json", **cache).returncode == 0
    assert read_record(tmp_path / "again.json")["model"]["compilation"]["graphs_from_cache"] >= 1


#: Prints whether servers import bitsandbytes, which opens the files of GPUs, and what their workers import beyond that and
#: how often they follow the model's passes. The servers are forks of a process that has imported torch alone, and that has
#: no NVML, which could leave such files open.
SERVERS = """
import os, sys
sys.modules["pynvml"] = None
from pathlib import Path
import numpy, torch
from inference_benchmark import engines
from inference_benchmark.engines import shapes
folder = Path(sys.argv[1])
for name, on_gpu, *precisions in (["hf", True], ["hf", False, "fp32", "int8"], ["ctranslate2", False, "fp32"]):
    if os.fork():
        os.wait()
        continue
    engines.create(name).import_libraries(folder, on_gpu=on_gpu)
    before = set(sys.modules)
    print("server", name, on_gpu, "bitsandbytes" in before)
    for precision in precisions:
        engine = engines.create(name)
        engine.start("cpu", 1, folder)
        engine.unsupported(precision)
        engine.load(folder, precision)
        engine.observe(numpy.ones((1, 2), dtype=numpy.int64), 2)
        print("worker", name, precision, sorted(set(sys.modules) - before), shapes.work_of_checkpoint.cache_info().misses)
    break
"""


def test_a_server_asks_for_no_gpu_and_has_done_what_all_its_workers_would():
    convert(weights())
    environ = {**os.environ, "PYTHONPATH": str(REPO / "scripts")}
    command = [sys.executable, "-c", SERVERS, str(weights())]
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    said = [line for line in done.stdout.splitlines() if line.startswith(("server hf ", "worker "))]
    assert said == [
        "server hf True False",
        "server hf False True",
        "worker hf fp32 [] 1",
        "worker hf int8 [] 1",
        "worker ctranslate2 fp32 [] 1",
    ], done.stderr
