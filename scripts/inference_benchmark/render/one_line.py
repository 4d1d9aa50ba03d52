"""How a measurement ended, in a few words for a line on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inference_benchmark.analysis import metrics
from inference_benchmark.analysis.ceilings import peaks
from inference_benchmark.analysis.max_batch import edge


def outcome_text(record: Mapping[str, Any]) -> str:
    """How a cell ended, in a few words: ``1,234.5 tok/s`` or ``oom during warm-up``."""
    if record["outcome"] == "oom":
        phase = record["reason"]["phase"]
        return "oom, as the search for the largest batch found" if phase == "max-batch" else f"oom during {phase}"
    if record["outcome"] == "unsupported":
        return f"unsupported: {record['reason']['message']}"
    throughput = metrics.figures(record).throughput_tok_per_s
    width = throughput.half_width
    notes = [*record["stability"]["reasons"], *record["flags"]]
    text = f"{throughput.value:,.1f} tok/s" + (f" ± {width:.1%}" if width is not None else "")
    return text + (f" ({', '.join(note['name'] for note in notes)})" if notes else "")


def study_text(document: Mapping[str, Any]) -> str:
    """How a study ended: its main figures, or its outcome."""
    if document["outcome"] != "ok":
        return f"{document['outcome']}: {document['reason']['message']}"
    if document["study"]["kind"] == "ceilings":
        found = peaks(document)
        speeds = ", ".join(f"{dtype} {speed / 1e12:,.2f}" for dtype, speed in found.flop_per_s.items())
        notes = ", ".join(flag["name"] for flag in document["flags"])
        return f"{found.bandwidth[-1][1] / 1e9:,.1f} GB/s; Tflop/s: {speeds}" + (f" ({notes})" if notes else "")
    if document["study"]["kind"] == "max-batch":
        fits, fails = edge(document["results"])
        return f"batch {fits} fits, {fails} does not ({len(document['results'])} tries)"
    answers = document["results"][0]
    error = answers["logits_error"]["mean"]
    off = "no number" if error is None else f"{error:.2g}"
    return f"{answers['token_agreement']:.1%} of the tokens as hf in fp32, error of the logits {off}"


def sentence(provenance: dict[str, Any]) -> str:
    """provenance.json as one sentence under a table."""
    facts = provenance["facts"]

    def named(name: str) -> str:
        return " and ".join(map(str, facts.get(name, ["unknown"])))

    where = named("device") + (f", driver {named('driver')}, CUDA {named('CUDA')}" if "driver" in facts else "")
    libraries = ", ".join(
        f"{n} {named(n)}" for n in ("torch", "transformers", "accelerate", "bitsandbytes", "ctranslate2") if n in facts
    )
    days = " to ".join(dict.fromkeys(provenance[key][:10] for key in ("measured_from", "measured_to")))
    commits = " and ".join(c[:10] for c in facts.get("commit", [])) or "outside a checkout"
    changed = ", with uncommitted changes" if True in facts.get("uncommitted changes", []) else ""
    return f"Measured on {where}, {days}, with {libraries}; commit {commits}{changed}."
