"""Real engines on a text, beside hf in fp32 and a bare loop of transformers."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import readers
from made_up import MODELS, make_cell
from readers import N_WINDOWS, bare_perplexity
from running import measure_cli, noted, run_study

from inference_benchmark import engines
from inference_benchmark.analysis import quality
from inference_benchmark.engines.refusal import UnsupportedError
from inference_benchmark.experiment.studies import QualityStudy


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> Path:
    return readers.save(tmp_path_factory.mktemp("reader"))


def study_of(checkpoint: Path, **changes) -> QualityStudy:
    return readers.study_of(make_cell(**{"engine": "hf", "model": noted(checkpoint)} | changes))


@pytest.mark.parametrize(
    ("engine", "precision"),
    [("hf", "fp32"), ("hf-static", "fp32"), ("ctranslate2", "fp32"), ("hf", "bf16"), ("hf", "nf4")],
)
def test_a_text_is_predicted_as_by_a_bare_loop_of_transformers(tmp_path, monkeypatch, reader, engine, precision):
    monkeypatch.chdir(tmp_path)
    study = study_of(reader, engine=engine, precision=precision)
    windows = run_study(study, Path("quality.json")).results
    assert [len(each["kl_nats"]) for each in windows] == [255] * N_WINDOWS
    perplexity, ratio = quality.perplexity(windows).value, quality.perplexity_ratio(windows)
    kl, p99, same = (formula(windows) for formula in (quality.kl_mean_nats, quality.kl_p99_nats, quality.same_best))
    bare = bare_perplexity(reader)
    if precision == "fp32":
        assert perplexity == pytest.approx(bare, rel=1e-5)
        assert (kl.value == 0) == engine.startswith("hf")
        assert p99.value < 1e-6
        assert same.value == 1
    else:
        assert ratio.value * bare == pytest.approx(perplexity, rel=1e-5)
        assert 1e-5 < kl.low < kl.value < p99.value
        assert 0.1 < same.value < 1
    assert not [path for path in tmp_path.iterdir() if path.name not in (".snakemake", "quality.json")]


def test_an_engine_without_logits_does_not_support_it():
    engine = engines.create("fake")
    with pytest.raises(UnsupportedError, match="FakeEngine provides no logits") as caught:
        engine.next_token_logits(numpy.zeros((1, 2)), numpy.zeros((1, 2)))
    assert engine.is_refusal(caught.value)


def test_a_tokenizer_of_another_model_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = readers.save(tmp_path / "model")
    small = MODELS["llama"] | {"vocab_size": 300}
    readers.synthesize(small, 0).save_pretrained(other)
    done = measure_cli(study_of(other), Path("quality.json"))
    assert done.returncode == 1
    assert "of the text is none of the 300 that the model has" in done.stderr
    assert not Path("quality.json").exists()
