# Studies: measurements other than cells. They show how far a cell is from what is possible. Only collect reads them. If
# they were inputs of measure, a study that is done again would measure every cell again.


rule ceilings:
    """Do one study: of the ceilings of the machine, memory bandwidth and matrix products per dtype.

    output: the record, with all samples and the conditions.
    """
    output:
        update("results/{machine}/ceilings.json"),
    log:
        "logs/{machine}/ceilings.log",
    conda:
        "../envs/benchmark.yaml"
    resources:
        **PLAN.slurm_resources,
        gpu=PLAN.gpus,
        attempt=PLAN.attempt,
    params:
        subject=PLAN.json_of("ceilings"),
        script=CODE / "scripts/measure.py",
        watch=PLAN.watched,
    shell:
        MEASURE


rule threads:
    """Try fewer CPU threads on the first cell of the grid, beside what else runs on the machine. Runs only on request.

    output: the records of all tries. What they say is printed, and shown by the report from then on.
    """
    output:
        thread_trial("{machine}"),
    log:
        "logs/{machine}/threads.log",
    conda:
        "../envs/benchmark.yaml"
    resources:
        **PLAN.resources_of_first_cell,
        attempt=PLAN.attempt,
    params:
        script=CODE / "scripts/threads.py",
        subject=PLAN.first_cell,
    shell:
        "python {params.script:q} --subject {params.subject:q} --output {output:q} 2> {log:q}"


use rule ceilings as max_batch with:
    # The largest batch that fits. The search starts from what the records of cells show, doubles the batch until it
    # does not fit, and then halves the interval. The record holds every try with its evidence.
    output:
        update("results/{machine}/{column}/max-batch.json"),
    log:
        "logs/{machine}/{column}/max-batch.log",
    params:
        subject=PLAN.json_of("max-batch"),


use rule ceilings as divergence with:
    # How far the answers of one engine and precision are from those of hf in fp32 to the same prompts.
    output:
        update("results/{machine}/{column}/divergence.json"),
    log:
        "logs/{machine}/{column}/divergence.log",
    priority: PLAN.priority_after_column
    params:
        subject=PLAN.json_of("divergence"),


use rule ceilings as batch_invariance with:
    # Whether the answers of one engine and precision are the same at all batch sizes.
    output:
        update("results/{machine}/{column}/batch-invariance.json"),
    log:
        "logs/{machine}/{column}/batch-invariance.log",
    priority: PLAN.priority_after_column
    params:
        subject=PLAN.json_of("batch-invariance"),


use rule ceilings as quality with:
    # How well one engine and precision predicts a text, and how far that is from hf in fp32. {column} is that of a
    # window of the text, whatever the workloads of the grid are.
    output:
        update("results/{machine}/{column}/quality.json"),
    log:
        "logs/{machine}/{column}/quality.log",
    params:
        subject=PLAN.json_of("quality"),


use rule ceilings as timeline with:
    # Where the time of a cell's calls goes: per step, and by kind of work. With timeline_trace, a Chrome trace is
    # written next to the record.
    output:
        update("results/{machine}/{column}/timeline-batch-{batch}.json"),
    log:
        "logs/{machine}/{column}/timeline-batch-{batch}.log",
    priority: PLAN.priority_after_column
    params:
        subject=PLAN.json_of("timeline"),
