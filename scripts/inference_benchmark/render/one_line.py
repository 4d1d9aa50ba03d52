"""A record, or the provenance of a table, in one line for a terminal or a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inference_benchmark.analysis import metrics
from inference_benchmark.analysis.ceilings import peaks
from inference_benchmark.analysis.descriptive import percentile
from inference_benchmark.analysis.figures import BY_GROUP, BY_NAME
from inference_benchmark.analysis.max_batch import batch_limit
from inference_benchmark.analysis.quality import Windows
from inference_benchmark.analysis.statistics import Estimate
from inference_benchmark.analysis.timeline import KINDS, Timeline
from inference_benchmark.cli import printable
from inference_benchmark.engines import PACKAGES
from inference_benchmark.experiment.outputs import thread_trial
from inference_benchmark.records import threads
from inference_benchmark.records.record import OTHER_CELL, AnyRecord, Record, StudyRecord
from inference_benchmark.units import format_duration, format_figure, format_half_width

#: From what share of disturbed rounds on fewer threads may be faster.
_OFTEN = 0.3


def record_text(record: AnyRecord) -> str:
    """How a cell or study ended."""
    return cell_text(record) if isinstance(record, Record) else study_text(record)


def cell_text(record: Record) -> str:
    """How a cell ended: ``1,234.5 tok/s ± 0.8% (drift), measured 2 times`` or ``oom during warm-up``. Parentheses hold
    warnings."""
    if record.outcome == "oom":
        phase = record.reason.phase
        other = "its first round" if record.cell.round > 1 else "a smaller batch"
        shown_by = {"max-batch": "the search for the largest batch", OTHER_CELL: other}.get(phase)
        return f"oom, as {shown_by} showed" if shown_by else f"oom during {phase}"
    if record.outcome == "unsupported":
        return f"unsupported: {record.reason.message}"
    text = _throughput_text(metrics.throughput_tok_per_s(record.measured()))
    text += f" ({', '.join(note.name for note in record.notes)})" if record.notes else ""
    if waited_s := sum(run.waited_s or 0 for run in record.runs):
        text += f", waited {waited_s:.0f} s for quiet"
    return text + (f", measured {1 + len(record.set_aside)} times" if record.set_aside else "")


def _throughput_text(throughput: Estimate) -> str:
    """``1,234.5 tok/s ± 0.8%``"""
    width = throughput.half_width
    return f"{format_figure(throughput.value, ',.1f')} tok/s ± " + ("?" if width is None else format_half_width(width))


def study_text(record: StudyRecord) -> str:
    """How a study ended: its main figures, or why it has none."""
    if record.outcome != "ok":
        return f"{record.outcome}: {record.reason.message}"
    warnings = f" ({', '.join(record.flag_names)})" if record.flags else ""
    if record.study.kind == "ceilings":
        machine = peaks(record.results)
        speeds = (f"{name} {format_figure(speed / 1e12, ',.2f')}" for name, speed in machine.flop_per_s.items())
        return f"{format_figure(machine.bandwidth[-1][1] / 1e9, ',.1f')} GB/s; Tflop/s: {', '.join(speeds)}{warnings}"
    if record.study.kind == "max-batch":
        fits, fails = batch_limit(record.results)
        return f"batch {fits} fits, {fails} does not ({len(record.results)} tries)"
    if record.study.kind == "timeline":
        return timeline_text(Timeline.of(record.results)) + warnings
    if record.study.kind == "batch-invariance":
        agreement = BY_NAME["batch_token_agreement"]
        parts = (f"batch {each['batch_size']} {agreement.text(each['token_agreement'])}" for each in record.results)
        return f"of the tokens as at batch 1: {', '.join(parts)}"
    if record.study.kind == "quality":
        return quality_text(record.results)
    result = record.results[0]
    error = result["logits_error"]["mean"]
    logits = "not finite" if error is None else f"{error:.2g}"
    return f"{format_figure(result['token_agreement'], '.1%')} of the tokens as hf in fp32, logits error {logits}"


def quality_text(windows: Windows) -> str:
    """``perplexity 24.12 (19.33 to 30.10), 1.016 (1.013 to 1.019) times that of hf fp32, KL 0.024 (0.022 to 0.026)``"""
    perplexity, ratio, kl, *_ = (each.text_of(each.estimate(windows)) or "unknown" for each in BY_GROUP["quality"])
    return f"perplexity {perplexity}, {ratio} times that of hf fp32, KL {kl}"


def timeline_text(timeline: Timeline) -> str:
    """The main figures of a timeline: ``first step 31.2 ms, then 12.1 ms; matrix products 61%, ...``."""
    text = f"first step {format_figure(timeline.step_s[0] * 1000, '.1f')} ms"
    if timeline.decode_s:
        text += f", then {format_figure(percentile(timeline.decode_s, 50) * 1000, '.1f')} ms"
    largest = sorted((timeline.shares or {}).items(), key=lambda item: -item[1])[:2]
    return "; ".join([text, *(f"{KINDS[kind]} {share:.0%}" for kind, share in largest)])


def threads_text(records: Sequence[Record]) -> str:
    """What a cell did with each number of CPU threads, as a sentence, and which number is the fastest where that is
    certain: its interval is above those of the others."""
    found, first = threads.throughputs(records), records[0]
    parts = [f"{n}: {_throughput_text(each)}" for n, each in found.items()]
    text = f"{first.cell.first_round.label}, by threads: {'; '.join(parts) or record_text(first)}."
    if not found:
        return text
    best = max(found, key=lambda n: found[n].value)
    others = [each for n, each in found.items() if n != best]
    if best != max(found) and all(each.high < found[best].low for each in others):
        factor = format_figure(found[best].value / found[max(found)].value, ".1f")
        text += f" measurement.threads: {best} would be {factor} times as fast here, and measure all cells again."
    return text


def provenance_text(provenance: Mapping[str, Any]) -> str:
    """provenance.json as one sentence under a table."""
    facts = provenance["facts"]

    def values(name: str, of: Mapping[str, Any] = facts) -> str:
        return " and ".join(map(str, of.get(name, ["unknown"])))

    def libraries(of: Mapping[str, Any]) -> str:
        return ", ".join(f"{name} {values(name, of)}" for name in packages if name in of)

    where = values("device") + (f", driver {values('driver')}, CUDA {values('CUDA')}" if "driver" in facts else "")
    packages = [name for name, package in PACKAGES.items() if package.compared_in]
    software = "; ".join(f"{name}: {libraries(of)}" for name, of in provenance.get("environments", {}).items())
    days = " to ".join(dict.fromkeys(provenance[key][:10] for key in ("measured_from", "measured_to")))
    no_commit = "unknown" if "commit unknown" in facts else "outside a checkout"
    commits = " and ".join(c[:10] for c in facts.get("commit", [])) or no_commit
    changed = ", with uncommitted changes" if True in facts.get("uncommitted changes", []) else ""
    measured = f"Measured on {where}, {days}, with {software or libraries(facts)}; commit {commits}{changed}."
    return f"{measured} {speed}" if (speed := machine_speed_text(provenance)) else measured


def see_text(places: Sequence[object]) -> str:
    """``, see LOG and LOG``; blank without any."""
    return f", see {' and '.join(map(str, places))}" if places else ""


def failure_text(outcome: str, of: str, places: Sequence[object], why: Sequence[str]) -> str:
    """``Failed: bloom-51m prompt9-new8 hf fp32 batch 8, see LOG:`` and the reasons in a line each below. of: a cell, a
    study or another job."""
    why = list(filter(None, why))
    return printable("\n    ".join([f"{outcome.capitalize()}: {of}{see_text(places)}{':' * bool(why)}", *why]))


def next_steps(provenance: Mapping[str, Any], tried: Sequence[Record] = ()) -> list[str]:
    """What would make the figures of a machine more certain, as sentences; none if all are as certain as asked for.

    tried: what a cell did there with fewer threads.
    """
    machine, settings = provenance["machine"], provenance["measurement"]
    above, disturbed, steps = provenance.get("above_target", {}), provenance.get("disturbed", {}), []
    if above.get("cells"):
        target = format_half_width(settings["target_half_width_percent"] / 100)
        step = f"{above['cells']} of {above['of']} cells have an interval above ±{target}"
        if above["rounds"]:
            least = str(settings["rounds"]).split()[0]
            rounds = f"measurement.rounds: {{least: {least}, most: {above['rounds']}}}"
            step += f"; {rounds} would narrow them, in about {format_duration(above['seconds'])}"
        steps.append(f"{step}.")
    if disturbed.get("rounds", 0) > _OFTEN * disturbed.get("of", 0):
        counted = f"Other processes disturbed {disturbed['rounds']} of {disturbed['of']} rounds"
        steps.append(f"{counted}; snakemake {thread_trial(machine)} tries fewer threads.")
    return [*steps, threads_text(tried)] if tried else steps


def machine_speed_text(provenance: Mapping[str, Any]) -> str:
    """How much the machine's own speed varied, as a sentence; blank where no cell timed it."""
    variation = provenance.get("machine_speed", {}).get("variation")
    if not variation:
        return ""
    parts = " and ".join(f"±{part:.0%} ({name})" for name, part in variation.items())
    return f"The machine's own speed varied by {parts}."
