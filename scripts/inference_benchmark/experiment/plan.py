"""The plan: everything that the rules need from a configuration.

Methods with a parameter ``wildcards`` are input functions: Snakemake calls them for each job.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from inference_benchmark.engines.options import gpus_of
from inference_benchmark.experiment.cells import Cell, first_and_round, record_path
from inference_benchmark.experiment.environments import Lock
from inference_benchmark.experiment.experiment import Experiment, in_measuring_order
from inference_benchmark.experiment.outputs import thread_trial
from inference_benchmark.experiment.rounds import decision_path, further_cells, read_decision
from inference_benchmark.experiment.studies import Study, Subject, possible_studies, requested_studies, study_path
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.models.checkpoint import Checkpoint
from inference_benchmark.models.texts import Text

#: The wildcards of a job, by name.
Wildcards = Mapping[str, str]

#: The resources of a job on a cluster, by the names that Snakemake has for them: the key of machines.LABEL.slurm.
_SLURM_RESOURCES = {
    "slurm_partition": "partition", "slurm_account": "account", "gpu_model": "gpu_model", "gres": "gres",
    "constraint": "constraint", "cpus_per_task": "cpus", "mem_mb": "mem_mb", "runtime": "runtime_minutes",
    "nodes": "nodes",
}  # fmt: skip
#: Keys whose value is multiplied by the attempt: time or memory may have ended the attempt before.
_GROWING = ("mem_mb", "runtime_minutes")


@dataclass(frozen=True)
class Plan:
    """What is measured, how it is watched, and what its jobs ask a cluster for.

    experiments: one for each machine, alike in all but machine and device_name. slurm: requests by machine, as
    machines.LABEL.slurm of the configuration; empty where it names no machines. locks: of all environments.
    checkpoints: of the models. texts: of quality and of prompts. history: the paths of results of earlier runs.
    """

    experiments: tuple[Experiment, ...]
    watch: Supervision
    slurm: Mapping[str, Mapping[str, Any]]
    locks: Sequence[Lock] = ()
    checkpoints: Sequence[Checkpoint] = ()
    texts: Sequence[Text] = ()
    history: Sequence[str] = ()

    def save(self) -> None:
        """Write the files that jobs read their part of it from. Raises OSError."""
        for part in (*self.experiments, *self.locks, *self.checkpoints, *self.texts):
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
        """The cells of the whole grid by the paths of their records, in the order of the tables. Further rounds, of
        single cells, are not among them."""
        return {path: cell for experiment in self.experiments for path, cell in experiment.by_path.items()}

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
        return (f"(({'|'.join(sorted(names))})/)?" if names else "") + r"[^/]+/prompt\d+-new\d+(-text)?/[^/]+/[^/]+"

    def subject(self, path: str) -> Subject | None:
        """The cell, in any round that it may have, or the study with a record at this path; None for another file."""
        if known := self.cells.get(path) or self.studies.get(path):
            return known
        first, number = first_and_round(path)
        is_possible = first in self.cells and self.any_machine.rounds < number <= (self.any_machine.most_rounds or 0)
        return replace(self.cells[first], round=number) if is_possible else None

    def possible_subjects(self, machines: Iterable[str]) -> Iterator[Subject]:
        """Every cell of these machines in every round that it may have, and every study that can be done."""
        for experiment in map(self.machines.get, machines):
            yield from replace(experiment, rounds=experiment.most_rounds or experiment.rounds).cells()
            yield from possible_studies(experiment)

    def further_records(self, machine: str) -> list[str]:
        """The records of the rounds beyond those of the whole grid, round by round. Raises ValueError where there is no
        decision that can be used."""
        experiment = self.machines[machine]
        decision = read_decision(experiment)
        if decision is None:
            raise ValueError(f"{decision_path(machine)} does not say how many rounds cells need; remove it")
        return [cell.path for cell in further_cells(experiment, decision)]

    def undecided(self, path: str) -> tuple[Sequence[Cell], int] | None:
        """(cells, in how many further rounds each may be measured): what the decision at this path may ask for; None
        for another file."""
        for experiment in self.experiments:
            if path == decision_path(experiment.machine):
                return list(replace(experiment, rounds=1).cells()), experiment.most_rounds - experiment.rounds
        return None

    def environments_of(self, paths: Iterable[str]) -> Sequence[tuple[str, str]]:
        """Name and digest of the lock of each environment that cells and studies with these records are measured in."""
        subjects = map(self.subject, paths)
        environments = (subject.setup.environment for subject in subjects if subject and subject.setup.environment)
        return list(dict.fromkeys((each["name"], each["lock"]) for each in environments))

    def without_weights(self, paths: Iterable[str]) -> Sequence[str]:
        """One line for each checkpoint that cells and studies with these records need, and that cannot be measured."""
        problems = {each.fingerprint: each.problem for each in self.checkpoints}
        models = (getattr(subject.setup, "model", {}) for subject in map(self.subject, paths) if subject)
        return [*filter(None, dict.fromkeys(problems.get(model.get("fingerprint")) for model in models))]

    @cached_property
    def shares_jobs(self) -> bool:
        """Whether there are jobs that measure several successive cells."""
        return any(requests["cells_per_job"] > 1 for requests in self.slurm.values())

    @cached_property
    def slurm_resources(self) -> Mapping[str, Callable[..., Any]]:
        """What jobs request from Slurm: an input function for each of Snakemake's resources."""
        return {resource: self._request(key) for resource, key in _SLURM_RESOURCES.items()} if self.slurm else {}

    @cached_property
    def resources_of_first_cell(self) -> Mapping[str, Callable[..., Any]]:
        """The same and the GPUs of a job that measures the first cell."""

        def of_first_cell(request: Callable[..., Any]) -> Callable[..., Any]:
            def of(wildcards: Wildcards, attempt: int) -> Any:
                machine = wildcards["machine"]
                return request({"machine": machine, "column": self._first_cells[machine].column.path}, attempt)

            return of

        requests = {**self.slurm_resources, "gpu": lambda wildcards, attempt: self.gpus(wildcards)}
        return {name: of_first_cell(request) for name, request in requests.items()}

    @cached_property
    def watched(self) -> Supervision | Callable[[Wildcards], Supervision]:
        """How a job is watched, and the device that it needs. An input function only if machines are named: Snakemake
        calls it for every job."""
        if not self.slurm:
            return self.watch
        return lambda wildcards: replace(self.watch, device_name=self.machines[wildcards["machine"]].device_name or "")

    # -- input functions -------------------------------------------------------------------------

    def records_of_machine(self, wildcards: Wildcards) -> list[str]:
        return list(self.machines[wildcards["machine"]].by_path)

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
            return lambda wildcards: self._cell(record_path(**wildcards)).to_json()
        return lambda wildcards: self.studies[study_path(kind, **wildcards)].to_json()

    def first_cell(self, wildcards: Wildcards) -> str:
        """The first cell of a machine, as one text."""
        return self._first_cells[wildcards["machine"]].to_json()

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
        later = list(reversed(self.machines)).index(wildcards["machine"])
        most_cells = self._cells_per_round * (self.any_machine.most_rounds or self.any_machine.rounds)
        # Every other number, so that a study fits between two cells.
        return 2 * ((later + 1) * most_cells - self._place(record_path(**wildcards)))

    def priority_after_column(self, wildcards: Wildcards) -> int:
        """Of a study that comes right after the cells of its column in the first round, while their server runs."""
        last_batch_size = self.any_machine.batch_sizes[-1]
        last = {"machine": wildcards["machine"], "column": wildcards["column"], "batch": last_batch_size}
        return self.priority(last) - 1

    def job_name(self, wildcards: Wildcards) -> str | None:
        """The name of the job that a cell shares with others; None if it has its own."""
        size = self.slurm[machine := wildcards["machine"]]["cells_per_job"]
        # In a shared job, cells on several GPUs and on one would run side by side.
        is_shared = size > 1 and self._gpus(wildcards) == 1
        return f"{machine}-{self._place(record_path(**wildcards)) // size}" if is_shared else None

    def gpus(self, wildcards: Wildcards) -> int:
        """0 if ``gres`` already requests them, else how many GPUs a job measures on; on a CPU 1, the slot that it
        measures in."""
        return 0 if self.slurm and self._gres(wildcards) else self._gpus(wildcards)

    def most_gpus(self, paths: Iterable[str]) -> int:
        """The most GPUs that a cell or study with one of these records, or a trial of one, is measured on."""
        tried = {thread_trial(machine): cell for machine, cell in self._first_cells.items()}
        subjects = (self.subject(path) or tried.get(path) for path in paths)
        return max((subject.setup.gpus for subject in subjects if subject), default=1)

    def attempt(self, wildcards: Wildcards, attempt: int) -> int:
        return attempt

    def _request(self, key: str) -> Callable[..., Any]:
        def request(wildcards: Wildcards, attempt: int) -> Any:
            requests, gpus = self.slurm[wildcards["machine"]], self._gpus(wildcards)
            if key == "nodes":  # else Slurm may take several GPUs from as many nodes
                return 1 if gpus > 1 else None
            if key == "gres":
                return self._gres(wildcards)
            if key == "gpu_model" and gpus > 1:  # gres has it
                return None
            return requests[key] * attempt if key in _GROWING else requests[key]

        return request

    def _gres(self, wildcards: Wildcards) -> str | None:
        """What a job asks for as ``--gres``, which counts per node. Several GPUs always: for ``--gpus=2 --nodes=1``
        Slurm 22.05 gave one."""
        requests, gpus = self.slurm[wildcards["machine"]], self._gpus(wildcards)
        if gpus == 1:
            return requests["gres"]
        of_node = requests["gres"] or ":".join(filter(None, ("gpu", requests["gpu_model"])))
        return f"{re.sub(r':[0-9]+$', '', of_node)}:{gpus}"

    def _gpus(self, wildcards: Wildcards) -> int:
        """The GPUs that a cell or study is measured on: those of its engine, if it is a variant."""
        *_, engine, _ = f"/{wildcards.get('column', '')}".rsplit("/", 2)
        return gpus_of(self.any_machine.variants.get(engine, {}), self.any_machine.device)

    def _cell(self, path: str) -> Cell:
        """The cell with a record at this path, in any round that it may have. Raises KeyError."""
        cell = self.subject(path)
        if not isinstance(cell, Cell):
            raise KeyError(path)
        return cell

    def _place(self, path: str) -> int:
        """The place of a cell, in any round, in the order in which those of its machine may be measured."""
        first, number = first_and_round(path)
        return (number - 1) * self._cells_per_round + self._places[number % 2][first]

    @cached_property
    def _first_cells(self) -> Mapping[str, Cell]:
        return {machine: next(experiment.cells()) for machine, experiment in self.machines.items()}

    @cached_property
    def _cells_per_round(self) -> int:
        """Of one machine."""
        return len(self._places[1]) // len(self.machines)

    @cached_property
    def _places(self) -> Sequence[Mapping[str, int]]:
        """The places of cells in the measuring order of an even and of an odd round, by their paths in the first."""
        return [
            {
                path: index
                for experiment in self.experiments
                for index, path in enumerate(in_measuring_order(experiment, number))
            }
            for number in (2, 1)
        ]
