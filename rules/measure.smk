# From the configuration to records: every cell, a model in one engine and precision at one batch size, is measured in a
# process of its own. What is measured, and when anything is measured again, follows from the parameter "cell" alone.
# Environments are made before the first job, where a person sees it; a job on another machine makes those it lacks.


onstart:
    make_environments([str(path) for job in workflow.dag.needrun_jobs() for path in job.output])


rule measure:
    """Measure one cell.

    output: its record: the samples, or the evidence that it did not fit or cannot be done. An earlier record is not
    removed first (update) but kept beside the new one. {column} is MODEL/WORKLOAD/ENGINE/PRECISION, below a folder for
    the environment where that is not the current one; {batch} the batch size, and from round 2 on the round too.
    """
    output:
        update("results/{machine}/{column}/batch-{batch}.json"),
    log:
        "logs/{machine}/{column}/batch-{batch}.log",
    priority: cell_priority_and_keep_going
    group:
        PLAN.job_name
    conda:
        "../envs/benchmark.yaml"
    resources:
        **PLAN.slurm_resources,
        # The slot to measure in, on a machine without a GPU too: cells side by side would slow each other.
        gpu=PLAN.gpus,
        attempt=PLAN.attempt,
    params:
        cell=PLAN.cell_json,
        # Not compared with those of an earlier run, because their types are not built-in.
        script=CODE / "scripts/measure.py",
        watch=PLAN.watched,
    shell:
        "python {params.script:q}"
        " --cell {params.cell:q}"
        " --output {output:q}"
        " --timeout-s {params.watch.timeout_s}"
        " --sample-hz {params.watch.sample_hz}"
        " --exclusive {params.watch.exclusive}"
        " --device-name={params.watch.device_name:q}"
        " --attempt {resources.attempt}"
        " 2> {log:q}"
