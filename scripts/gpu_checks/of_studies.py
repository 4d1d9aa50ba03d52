"""Checks that look at the records of studies."""

from __future__ import annotations

from operator import truediv

from gpu_checks.data_sheets import DATA_SHEETS
from gpu_checks.runner import Verdict, ok_if
from gpu_checks.setup import Setup, studied
from inference_benchmark.analysis.ceilings import peaks
from inference_benchmark.analysis.max_batch import batch_limit
from inference_benchmark.analysis.roofline import Peaks
from inference_benchmark.analysis.timeline import Timeline
from inference_benchmark.experiment.cells import Workload
from inference_benchmark.experiment.studies import CeilingsStudy, ColumnStudy, TimelineStudy
from inference_benchmark.render.one_line import study_text
from inference_benchmark.units import format_bytes

#: Which part of a data sheet's figure is plausible. A clock can be a little faster than that of the data sheet.
LEAST_SHARE, MOST_SHARE = 0.50, 1.05
#: The steps of a call take at least this part of it. The rest is the copy of its tokens.
STEPS_SHARE = 0.8


def check_ceilings(setup: Setup) -> Verdict:
    found = studied(setup, CeilingsStudy("gpu-check", setup.device, setup.threads))
    verdict = against_data_sheet(found.device["name"], peaks(found.results))
    return verdict._replace(evidence=f"{study_text(found)}; {verdict.evidence}")


def against_data_sheet(name: str, measured_peaks: Peaks) -> Verdict:
    """Which part of its data sheet's figures a device of this name reaches."""
    speeds = {"bandwidth": measured_peaks.bandwidth[-1][1], **measured_peaks.flop_per_s}
    sheet = DATA_SHEETS.get(name)
    if sheet is None:
        return ok_if(
            all(speed > 0 for speed in speeds.values()), f"no data sheet figures for {name}", {"speeds": speeds}
        )
    shares = {what: speeds.get(what, 0) / figure for what, figure in sheet.items()}
    odd = [what for what, share in shares.items() if not LEAST_SHARE <= share <= MOST_SHARE]
    text = f"of the data sheet: {', '.join(f'{what} {share:.0%}' for what, share in shares.items())}"
    if odd:
        text += f"; not within {LEAST_SHARE:.0%} and {MOST_SHARE:.0%}: {', '.join(odd)}"
    return ok_if(not odd, text, {"speeds": speeds, "shares": shares})


def check_timeline(setup: Setup, engine: str) -> Verdict:
    found = studied(setup, TimelineStudy(setup.cell(engine, setup.precision, setup.batch_sizes[0]), trace=False))
    timeline = Timeline.of(found.results)
    if timeline.profile is None:
        return ok_if(False, f"{study_text(found)}; no profile: {'; '.join(flag.message for flag in found.flags)}")
    # A call may have to wait for a CPU after its last step.
    steps_share = max(map(truediv, map(sum, timeline.calls), timeline.observed_s))
    shares = timeline.shares
    others = ", ".join(each["name"] for each in timeline.profile["longest"] if each["kind"] == "other")
    return ok_if(
        STEPS_SHARE < steps_share <= 1 and shares["products"] > 0 and shares["outside"] < 1,
        f"{study_text(found)}; the steps are {steps_share:.1%} of their calls; timing them costs "
        f"{timeline.observing_cost:+.1%}, profiling {timeline.profiling_cost:+.0%}; other kernels: {others}",
        {"shares": shares, "growth": timeline.growth, "longest": timeline.profile["longest"]},
    )


def check_search(setup: Setup, engine: str) -> Verdict:
    prompt_tokens, limit_bytes = setup.searched
    workload = Workload(prompt_tokens, setup.new_tokens)
    cell = setup.probe_cell(engine, setup.precision, workload=workload, memory_limit_bytes=limit_bytes)
    found = studied(setup, ColumnStudy.of("max-batch", cell, tolerance_percent=2))
    fits, fails = batch_limit(found.results)
    tried = [each["batch_size"] for each in found.results]
    return ok_if(
        fits > 0 and fails is not None,
        f"{study_text(found)} under {format_bytes(limit_bytes)}: {', '.join(map(str, tried))}",
        {"fits": fits, "fails": fails, "tried": tried},
    )
