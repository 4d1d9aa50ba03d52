#!/usr/bin/env python3
"""Whether everything works on a new GPU, in its first minutes: python scripts/gpu_check.py > check.json

weights      weights are drawn: of BLOOM 1.3B, and of a probe, which is as wide and has few layers
engine       an engine of an optional package finds its libraries and generates
cells        each engine and precision at batch 1 and 128: tok/s, and what the wall time of the cell consists of
answers      the fp32 tokens of each engine are those of hf
recordings   hf-static compiled, on CUDA recorded CUDA graphs and gave up none; nothing of it happened in timed calls
forked       a worker that is forked, as in a run of Snakemake, gives the tokens of one that starts cold
libraries    versions of CUDA and cuDNN, and whether NVML leaves files of the GPU open
memory       allocated <= reserved <= what the device has
tf32         products of fp32 matrices did not run in TF32
conditions   which gauges and counters can be read
energy       the energy counter against power x time
yardstick    the device is not much slower right after a cell than before
rows         rows of so large a batch that rows x heads exceed 65,535 give the same fp32 tokens in a small batch
oom          a cell that does not fit into memory_limit is oom, in words about memory, and the limit is named
caches       hf-static holds one static cache after several calls, and none after its release
capture      whether a process is of use after a CUDA graph ran out of memory while it was recorded
placement    weights in host memory, on disk, and, with two GPUs, by layers or parts on both: the same tokens
ceilings     memory bandwidth and arithmetic against the data sheet
timeline     the steps of a call add up to it, its parts too, and most kernels are of a kind that is known
search       the largest batch under a memory_limit is found

Each check runs in processes of its own: one that crashes or hangs is failed, and the others run. A line for each goes
to stderr, one JSON document to stdout. The exit status is 1 if a check failed. What has not begun when the time is up
is skipped. What decides most comes first, then what compiles nothing (scripts/gpu_checks/order.py). The precisions that
are not in the default grid come last.

On a CPU the model is tiny, the batch is 4, two checks run at a time, and the figures mean nothing.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpu_checks.order import checks
from gpu_checks.runner import Check, chosen, run_checks
from gpu_checks.setup import SETUPS
from inference_benchmark.cli import fail, printable
from inference_benchmark.engines import PRECISIONS
from inference_benchmark.experiment.as_json import CellError
from inference_benchmark.machine import hardware, provenance

#: Minutes for what decides most and what compiles nothing, with room. The limit of each check is meant for them.
MINUTES = 8


def find_device(wanted: str | None) -> tuple[str, list[hardware.Gpu]]:
    """(device, its GPUs). Raises LookupError and hardware.GpuError where there is none that can be used."""
    device = wanted or hardware.detect_device()
    if device == "cpu":
        return device, []
    gpus = hardware.visible(hardware.gpus(), os.environ)
    if not gpus:
        raise LookupError("no GPU is visible here")
    return device, gpus


def run(planned: Sequence[Check], budget_s: float, at_a_time: int, logs: Path) -> list[dict[str, Any]]:
    """Run the checks, print a line for each, and return what the JSON document has of them, in their order."""
    results = {}
    for check, verdict, seconds in run_checks(planned, budget_s, at_a_time, logs):
        text = printable(" ".join(verdict.evidence.split()))
        print(f"{check.name:<28} {verdict.verdict:<8}{seconds:6.1f} s  {text}", file=sys.stderr, flush=True)
        results[check.name] = {"name": check.name, **verdict._asdict(), "seconds": round(seconds, 1)}
        if verdict.verdict == "failed" and check.log(logs).exists():
            log = check.log(logs).read_text(encoding="utf-8", errors="replace")
            results[check.name]["output"] = log.splitlines()[-40:]
    return [results[check.name] for check in planned]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=list(SETUPS), help="default: cuda if a GPU is visible, else cpu")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="checks or kinds of checks, such as cells/hf or rows")
    parser.add_argument(
        "--minutes",
        type=float,
        default=MINUTES,
        help="time for all checks (%(default)s); with more, each check may take longer, too; inf: without a limit",
    )
    parser.add_argument("--model", type=json.loads, metavar="JSON", help="sizes of the model, as an architecture")
    parser.add_argument("--batch", type=int, nargs="+", metavar="N", help="batch sizes of the cells")
    parser.add_argument("--precisions", choices=PRECISIONS, nargs="+", metavar="NAME", help="precisions of the cells")
    parser.add_argument("--folder", type=Path, help="where to keep records and logs; default: nowhere")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="gpu-check-"))
    try:
        device, gpus = find_device(arguments.device)
        (folder / "logs").mkdir(parents=True)  # records of an earlier check would not be measured again
        at_a_time = 1 if gpus else min(2, hardware.default_threads())
        setup = replace(
            SETUPS[device],
            **{
                name: value
                for name, value in (
                    ("model", arguments.model),
                    ("batch_sizes", arguments.batch and tuple(arguments.batch)),
                    ("precisions", arguments.precisions and tuple(arguments.precisions)),
                )
                if value
            },
            pair=",".join(gpu.uuid for gpu in gpus[:2]) if len(gpus) > 1 else "",
            threads=hardware.default_threads() // at_a_time,
            folder=str(folder),
        )
        stretch = max(1, arguments.minutes / MINUTES)
        planned = [replace(each, limit_s=each.limit_s * stretch) for each in checks(setup)]
        if arguments.only:
            planned = chosen(planned, arguments.only)
        if gpus:  # all checks are of the first, but for one that takes two
            os.environ |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": gpus[0].uuid}
        began, began_s = datetime.now(UTC), time.monotonic()
        results = run(planned, arguments.minutes * 60, at_a_time, folder / "logs")
    except FileExistsError as error:
        return fail(f"{error.filename} exists; name a new folder")
    except (LookupError, hardware.GpuError, CellError) as error:
        return fail(str(error))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        if not arguments.folder:
            shutil.rmtree(folder)
    document = {
        "device": provenance.device(gpus[:1]),
        "host": provenance.host(),
        "software": provenance.software(),
        "git": provenance.git(),
        "started_at": began.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - began_s, 1),
        "setup": asdict(setup),
        "checks": results,
    }
    print(json.dumps(document, indent=1))
    words = [each["verdict"] for each in results]
    counts = ", ".join(f"{words.count(word)} {word}" for word in ("ok", "failed", "skipped"))
    print(f"{document['device']['name']}: {counts}, {document['seconds']:.0f} s", file=sys.stderr)
    return 1 if "failed" in words else 0


if __name__ == "__main__":
    sys.exit(main())
