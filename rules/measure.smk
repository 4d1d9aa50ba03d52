# Cells: a model in one engine and precision at one batch size, each measured in a process of its own. The parameter
# "subject" is the whole cell as JSON. It alone decides when a cell is measured again.


onstart:
    leave_cpus_alone()
    refuse_without_weights(unfinished_outputs())
    refuse_too_few_slots(unfinished_outputs())
    # Here a person sees it. A job on another machine makes the environments that it lacks.
    make_environments(unfinished_outputs())


onerror:
    rename_outdated_records()
    show_what_there_is()


# The command of all rules that measure, with their params subject, script and watch.
MEASURE = (
    "python {params.script:q}"
    " --subject {params.subject:q}"
    " --output {output:q}"
    " --timeout-s {params.watch.timeout_s}"
    " --sample-hz {params.watch.sample_hz}"
    " --exclusive {params.watch.exclusive}"
    " --patience-s {params.watch.patience_s}"
    " --max-retakes {params.watch.max_retakes}"
    " --device-name={params.watch.device_name:q}"
    " --attempt {resources.attempt}"
    " 2> {log:q}"
)


rule measure:
    """Measure one cell in one round.

    output: the record, with the samples, or with the evidence that the cell did not fit or is not supported. An earlier
    record is renamed when the new one is written, not removed before (update). {column} is
    MODEL/WORKLOAD/ENGINE/PRECISION, in a folder of the environment unless that is the current one. {batch} is the batch
    size, from round 2 on with the round.
    """
    output:
        update("results/{machine}/{column}/batch-{batch}.json"),
    log:
        "logs/{machine}/{column}/batch-{batch}.log",
    priority: PLAN.priority
    group:
        shared_job if PLAN.shares_jobs else None
    conda:
        "../envs/benchmark.yaml"
    resources:
        **PLAN.slurm_resources,
        # Also without a GPU: cells that run at the same time would slow each other.
        gpu=PLAN.gpus,
        attempt=PLAN.attempt,
    params:
        subject=PLAN.json_of("cell"),
        # Snakemake compares only parameters of built-in types with those of an earlier run. These two are not.
        script=CODE / "scripts/measure.py",
        watch=PLAN.watched,
    shell:
        MEASURE
