"""Texts, and their tokens by a checkpoint's tokenizer."""

from __future__ import annotations

import pytest
import readers
from transformers import AutoTokenizer

from inference_benchmark.analysis.quality import WINDOW_TOKENS
from inference_benchmark.models import texts
from inference_benchmark.models.weights import CheckpointError


def kept(content: str, monkeypatch, tmp_path):
    """The file of a text that was kept in a working directory."""
    monkeypatch.chdir(tmp_path)
    text = texts.Text("some", content)
    text.save()
    return texts.saved(text.sha256).absolute()


@pytest.mark.parametrize("begin", [False, True])
def test_windows_are_the_tokens_of_the_text(tmp_path, monkeypatch, begin):
    checkpoint, text = readers.save(tmp_path / "model", begin=begin), kept(readers.TEXT, monkeypatch, tmp_path)
    tokens = AutoTokenizer.from_pretrained(checkpoint)(readers.TEXT)["input_ids"]
    found = texts.windows(text, checkpoint, 3 * WINDOW_TOKENS + 7)
    assert found.shape == (3, WINDOW_TOKENS)
    expected = tokens[: 3 * WINDOW_TOKENS]
    if begin:
        assert expected[0] == 0
        expected[WINDOW_TOKENS] = expected[2 * WINDOW_TOKENS] = 0
    assert found.flatten().tolist() == expected


def test_a_text_is_read_as_far_as_its_tokens_may_reach(tmp_path):
    file = tmp_path / "long.txt"
    file.write_text("words " * 100_000)
    text = texts.read("long.txt", file, 1024)
    assert (text.name, len(text.content)) == ("long.txt", 32 * 1024)
    assert text.sha256 != texts.read("long.txt", file, 2048).sha256
    assert texts.read("python", file, 1024).content.startswith('The "assert" statement\n')


def test_a_text_that_cannot_be_used_is_one_line(tmp_path):
    (tmp_path / "latin").write_bytes(b"caf\xe9" * 1000)
    (tmp_path / "short").write_text("a" * 1023)
    for name, problem in {
        "nope": "is not a file; allowed: python, or a file of text in UTF-8",
        ".": "is not a file; allowed: python, or a file of text in UTF-8",
        "latin": "is not UTF-8 text; save it as UTF-8",
        "short": "holds 1.02 kB, less than 1024 tokens; name a longer text",
    }.items():
        with pytest.raises(texts.TextError) as caught:
            texts.read(name, tmp_path / name, 1024)
        assert str(caught.value) == f"{tmp_path / name} {problem}"


def test_what_was_kept_has_to_be_whole(tmp_path, monkeypatch):
    path = kept("some text", monkeypatch, tmp_path)
    path.write_text("some other text")
    with pytest.raises(CheckpointError, match=r"\.txt does not hold the text with this digest; remove it"):
        texts.saved(path.stem)


def test_a_text_of_too_few_tokens_or_without_a_tokenizer_is_refused(tmp_path, monkeypatch):
    checkpoint = readers.save(tmp_path / "model")
    assert texts.has_tokenizer(checkpoint)
    with pytest.raises(CheckpointError, match=r"^\d+ tokens of the text are less than 2 windows of 512"):
        texts.windows(kept(readers.TEXT[:1500], monkeypatch, tmp_path), checkpoint, 2048)
    for path in checkpoint.glob("tokenizer*"):
        path.unlink()
    assert not texts.has_tokenizer(checkpoint)
    with pytest.raises(CheckpointError, match="its tokenizer cannot be used: "):
        texts.windows(kept(readers.TEXT, monkeypatch, tmp_path), checkpoint, 2048)


@pytest.mark.parametrize("begin", [False, True])
def test_prompts_are_windows_of_the_text_another_for_each_row(tmp_path, monkeypatch, begin):
    checkpoint = readers.save(tmp_path / "model", begin=begin)
    tokens = texts.tokens_of(kept(readers.TEXT, monkeypatch, tmp_path), checkpoint)
    assert tokens.first == [0] * begin
    found = texts.prompts(tokens, 100, 9, seed=0)
    assert (found.shape, found.dtype) == ((100, 9), "int64")
    if begin:
        assert (found[:, 0] == 0).all()
    every = {tuple(tokens.ids[place : place + 9 - begin]) for place in range(len(tokens.ids))}
    assert {tuple(row[begin:]) for row in found.tolist()} <= every
    assert len({tuple(row) for row in found.tolist()}) > 90, "the text itself repeats some"
    assert (texts.prompts(tokens, 3, 9, seed=0) == found[:3]).all(), "a row is the same in every batch"
    assert (texts.prompts(tokens, 3, 9, seed=1) != found[:3]).any()
    assert texts.prompts(tokens, 2, 1, seed=0).shape == (2, 1)


def test_rows_share_windows_only_if_there_are_more_rows():
    tokens = texts.Tokens([], list(range(10)))
    assert sorted(texts.prompts(tokens, 7, 4, seed=0)[:, 0].tolist()) == list(range(7))
    assert sorted(texts.prompts(tokens, 14, 4, seed=0)[:, 0].tolist()) == sorted([*range(7)] * 2)
    with pytest.raises(CheckpointError, match="10 tokens of the text are less than a prompt has"):
        texts.prompts(tokens, 1, 11, seed=0)
