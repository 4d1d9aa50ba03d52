"""The plan: everything that the rules need from a configuration.

Methods with a parameter ``wildcards`` are input functions: Snakemake calls them for each job.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any

from inference_benchmark.experiment.cells import Cell, record_path
from inference_benchmark.experiment.environments import Lock
from inference_benchmark.experiment.experiment import Experiment, in_measuring_order
from inference_benchmark.experiment.studies import Study, possible_studies, requested_studies, study_path
from inference_benchmark.experiment.supervision import Supervision

#: The wildcards of a job, by name.
Wildcards = Mapping[str, str]

#: The resources of a job on a cluster, by the names that Snakemake has for them: the key of machines.LABEL.slurm.
_SLURM_RESOURCES = {
    "slurm_partition": "partition", "slurm_account": "account", "gpu_model": "gpu_model", "gres": "gres",
    "constraint": "constraint", "cpus_per_task": "cpus", "mem_mb": "mem_mb", "runtime": "runtime_minutes",
}  # fmt: skip
#: Keys whose value is multiplied by the attempt: time or memory may have ended the attempt before.
_GROWING = ("mem_mb", "runtime_minutes")


@dataclass(frozen=True)
class Plan:
    """What is measured, how it is watched, and what its jobs ask a cluster for.

    experiments: one for each machine, alike in all but machine and device_name. slurm: requests by machine, as
    machines.LABEL.slurm of the configuration; empty where it names no machines. locks: of all environments. history:
    the paths of results of earlier runs.
    """

    experiments: tuple[Experiment, ...]
    watch: Supervision
    slurm: Mapping[str, Mapping[str, Any]]
    locks: Sequence[Lock] = ()
    history: Sequence[str] = ()

    def save(self) -> None:
        """Write the files that jobs read their part of it from. Raises OSError."""
        for part in (*self.experiments, *self.locks):
            part.save()

    @cached_property
    def machines(self) -> Mapping[str, Experiment]:
        return {experiment.machine: experiment for experiment in self.experiments}

    @cached_property
    def any_machine(self) -> Experiment:
        """An experiment with the wildcard {machine} for its machine, to make paths from."""
        return replace(self.experiments[0], machine="{machine}")

    @cached_property
    def cells(self) -> Mapping[str, Cell]:
        """All cells by the paths of their records, in the order of the tables."""
        return {cell.path: cell for experiment in self.experiments for cell in experiment.cells()}

    @cached_property
    def studies(self) -> Mapping[str, Study]:
        """All studies that can be done, by the paths of their records."""
        return {study.path: study for experiment in self.experiments for study in possible_studies(experiment)}

    @cached_property
    def requested_studies(self) -> Sequence[str]:
        """The paths of the studies that the configuration asks for."""
        return [study.path for experiment in self.experiments for study in requested_studies(experiment)]

    @cached_property
    def columns(self) -> str:
        """A regular expression for the wildcard {column}: what Column.path makes."""
        names = {re.escape(env["name"]) for each in self.experiments for env in each.environments if env}
        return (f"(({'|'.join(sorted(names))})/)?" if names else "") + r"[^/]+/prompt\d+-new\d+/[^/]+/[^/]+"

    def environments_of(self, paths: Iterable[str]) -> Sequence[tuple[str, str]]:
        """Name and digest of the lock of each environment that cells and studies with these records are measured in."""
        subjects = (self.cells.get(path) or self.studies.get(path) for path in paths)
        environments = (subject.setup.environment for subject in subjects if subject and subject.setup.environment)
        return list(dict.fromkeys((each["name"], each["lock"]) for each in environments))

    @cached_property
    def job_names(self) -> Mapping[str, str]:
        """The names of jobs that measure several successive cells, by the paths of their cells."""
        return {
            path: f"{machine}-{index // size}"
            for machine, paths in self._measuring_order.items()
            if (size := self.slurm.get(machine, {}).get("cells_per_job", 1)) > 1
            for index, path in enumerate(paths)
        }

    @cached_property
    def slurm_resources(self) -> Mapping[str, Callable[..., Any]]:
        """What jobs request from Slurm: an input function for each of Snakemake's resources."""
        return {resource: self._request(key) for resource, key in _SLURM_RESOURCES.items()} if self.slurm else {}

    @cached_property
    def watched(self) -> Supervision | Callable[[Wildcards], Supervision]:
        """How a job is watched, and the device that it needs. An input function only if machines are named: Snakemake
        calls it for every job."""
        if not self.slurm:
            return self.watch
        return lambda wildcards: replace(self.watch, device_name=self.machines[wildcards["machine"]].device_name or "")

    # -- input functions -------------------------------------------------------------------------

    def records_of_machine(self, wildcards: Wildcards) -> list[str]:
        return list(self._cells_of(wildcards["machine"]))

    def studies_of_machine(self, wildcards: Wildcards) -> list[str]:
        """The studies that the configuration asks for on a machine."""
        return [study.path for study in requested_studies(self.machines[wildcards["machine"]])]

    def json_of(self, kind: str) -> Callable[[Wildcards], str]:
        """An input function: a whole cell ("cell"), or a study of a kind, as one text. So a change of any setting is a
        changed parameter.

        It must not take the output: Snakemake does not compare such a parameter with that of an earlier run. Not a
        method: Snakemake looks up the signature for every job, which takes twice as long for a method.
        """
        if kind == "cell":
            return lambda wildcards: self.cells[record_path(**wildcards)].to_json()
        return lambda wildcards: self.studies[study_path(kind, **wildcards)].to_json()

    def first_cell(self, wildcards: Wildcards) -> str:
        """The first cell of a machine, as one text."""
        return next(self.machines[wildcards["machine"]].cells()).to_json()

    def experiment_json(self, wildcards: Wildcards) -> str:
        """As one text: a change of any setting is a changed parameter."""
        return self.machines[wildcards["machine"]].to_json()

    def experiment_file(self, wildcards: Wildcards) -> str:
        """The file with that text, for scripts."""
        return str(self.machines[wildcards["machine"]].path)

    def baseline(self, wildcards: Wildcards) -> str:
        """The path of a baseline, a file or a folder."""
        return self.any_machine.baselines[wildcards["baseline"]]

    def priority(self, wildcards: Wildcards) -> int:
        """Of a cell: higher the earlier it is measured."""
        return self._priorities[record_path(**wildcards)]

    def priority_after_column(self, wildcards: Wildcards) -> int:
        """Of a study that comes right after the cells of its column in the first round, while their server runs."""
        last_batch_size = self.any_machine.batch_sizes[-1]
        last = record_path(machine=wildcards["machine"], column=wildcards["column"], batch=last_batch_size)
        return self._priorities[last] - 1

    def job_name(self, wildcards: Wildcards) -> str | None:
        """The name of the job that a cell shares with others; None if it has its own."""
        return self.job_names.get(record_path(**wildcards))

    def gpus(self, wildcards: Wildcards) -> int:
        """0 if ``gres`` already requests the GPU, else 1: on a CPU too, the slot that a job measures in."""
        return 0 if self.slurm and self.slurm[wildcards["machine"]]["gres"] else 1

    def attempt(self, wildcards: Wildcards, attempt: int) -> int:
        return attempt

    def _request(self, key: str) -> Callable[..., Any]:
        def request(wildcards: Wildcards, attempt: int) -> Any:
            value = self.slurm[wildcards["machine"]][key]
            return value * attempt if key in _GROWING else value

        return request

    @cached_property
    def _priorities(self) -> Mapping[str, int]:
        # Every other number, so that a study fits between two cells.
        paths = list(chain.from_iterable(self._measuring_order.values()))
        return {path: 2 * (len(paths) - index) for index, path in enumerate(paths)}

    @cached_property
    def _measuring_order(self) -> Mapping[str, Sequence[str]]:
        """The paths of the cells of each machine in the order in which they are measured."""
        return {machine: in_measuring_order(self._cells_of(machine)) for machine in self.machines}

    def _cells_of(self, machine: str) -> dict[str, Cell]:
        return {path: cell for path, cell in self.cells.items() if cell.setup.machine == machine}
