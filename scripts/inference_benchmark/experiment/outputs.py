"""The files that are derived from the records of an experiment."""

from collections.abc import Sequence

from inference_benchmark.analysis.figures import FIGURES
from inference_benchmark.experiment.environments import CURRENT, name_of
from inference_benchmark.experiment.experiment import Experiment

#: The charts that have files for a README, and how each is drawn.
FILE_CHARTS = tuple(figure.key for figure in FIGURES if figure.headline)
THEMES = ("light", "dark")
CHART_TYPES = ("svg", "png")
#: The folders of a machine whose own files are derived; others may belong to a model of that name.
DERIVED_FOLDERS = ("charts", "comparison", "preview")
_OVERALL_REPORT = "results/report.html"


def derived(experiment: Experiment) -> list[str]:
    """The files of one machine that rule all makes, besides cells and studies."""
    folder = f"results/{experiment.machine}"
    files = [f"{folder}/{name}" for name in ("summary.csv", "provenance.json", "tables.md", "report.html")]
    return files + comparison_files(experiment) + across_files(experiment) + chart_files(experiment)


def overall(experiments: Sequence[Experiment]) -> list[str]:
    """The files of several machines together that rule all makes."""
    return [_OVERALL_REPORT] if len(experiments) > 1 else []


def pages(experiments: Sequence[Experiment]) -> list[str]:
    """The reports, of each machine and of several together."""
    return [*(f"results/{experiment.machine}/report.html" for experiment in experiments), _OVERALL_REPORT]


def thread_trial(machine: str) -> str:
    """The records of a cell with each number of CPU threads, which are made on request (scripts/threads.py)."""
    return f"results/{machine}/threads.json"


def comparison_files(experiment: Experiment, types: tuple[str, ...] = ("json", "md", "html")) -> list[str]:
    folder = f"results/{experiment.machine}/comparison"
    return [f"{folder}/{name}.{ending}" for name in experiment.baselines for ending in types]


def across_files(experiment: Experiment, types: tuple[str, ...] = ("json", "md", "html")) -> list[str]:
    """The comparisons of each environment with the current one, where a grid has that and others."""
    names = [name_of(environment) for environment in experiment.environments]
    others = [name for name in names if name != CURRENT] if CURRENT in names else []
    folder = f"results/{experiment.machine}/comparison"
    return [f"{folder}/{CURRENT}+{name}.{ending}" for name in others for ending in types]


def chart_files(experiment: Experiment) -> list[str]:
    return [path for model in experiment.models for path in charts_of(experiment, model["name"])]


def charts_of(experiment: Experiment, model: str) -> list[str]:
    """The charts of one model; the output of rule charts."""
    return [
        f"results/{experiment.machine}/charts/{chart_file(model, workload.name, chart, theme)}.{ending}"
        for workload in experiment.workloads
        for chart in FILE_CHARTS
        for theme in THEMES
        for ending in CHART_TYPES
    ]


def chart_file(model: str, workload: str, chart: str, theme: str) -> str:
    """The name of a chart's file, without its ending."""
    return f"{model}-{workload}-{chart}-{theme}"
