# What the workflow uses of Snakemake beyond its documentation. If a new version breaks the workflow, look here first.

import sys

if not IS_MODULE:
    # To compare parameters, Snakemake imports pandas where it is installed, which takes a fourth of a start. It needs
    # pandas for data frames only, and our parameters are texts. As a module, the other workflow may have data frames.
    sys.modules.setdefault("pandas", None)


def shared_job(wildcards):
    """The group of a cell that shares a job of a cluster with others; None for a cell with a job of its own.

    group-components in profiles/slurm cannot name these groups one by one. So each is noted as part of a group "cells",
    as Snakemake itself does it for a group with wildcards. In the job, the other cells are measured if one fails:
    Snakemake does not pass --keep-going on to jobs.
    """
    name = PLAN.job_name(wildcards)
    if name is None:
        return None
    workflow.parent_groupids[name] = "cells"
    if workflow.remote_exec:
        workflow.execution_settings.keep_going = True
    return name


def run_mode():
    """``plan`` for a dry run, ``touch``, or ``run``. Known when Snakemake has read all rules."""
    return "plan" if workflow.dryrun else "touch" if workflow.touch else "run"


def is_dry_run():
    """Whether this is a dry run. Known while Snakemake reads the rules."""
    return workflow.output_settings.dryrun


def is_forced():
    """Whether the command line names jobs to be run although they need not be, as --forcerun does."""
    settings = workflow.dag_settings
    return bool(settings.forceall or settings.forcetargets or settings.forcerun)


def plan_again(paths):
    """Let Snakemake run the jobs with these outputs where it needs these. There is no documented way: --forcerun would
    make targets of them all, whatever the command line asks for."""
    prepare = workflow._prepare_dag

    def prepare_and_force(*arguments, **options):
        prepare(*arguments, **options)
        workflow.dag.forcefiles.update(paths)

    workflow._prepare_dag = prepare_and_force


def plan_the_unwritable():
    """Let a dry run plan jobs that have outputs which may not be written. Snakemake ends at the first of them."""
    from snakemake.jobs import Job

    async def unchecked(job):
        pass

    Job.check_protected_output = unchecked


def is_local():
    """Whether jobs run on this machine. Known when Snakemake has read all rules."""
    return workflow.local_exec


def gpu_slots():
    """How many GPUs jobs may use at a time; None without a limit."""
    return workflow.global_resources.get("gpu").value


def retries():
    """How many times a failed job is repeated. Known when Snakemake has read all rules."""
    return workflow.execution_settings.retries


def unfinished_outputs():
    """The outputs of all jobs that are still to be run."""
    return [str(path) for job in workflow.dag.needrun_jobs() for path in job.output]


def leave_cpus_alone():
    """Let Snakemake sleep while a job measures. Called when its scheduler is there and before it starts.

    To limit the jobs per second, Snakemake 9.27 wakes up a second after it has looked for jobs, and once more for every
    job that has ended: after a hundred jobs that takes 7 % of two CPUs from the cell that is measured.
    """
    workflow.scheduler.job_rate_limiter = None
