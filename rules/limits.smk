# From the configuration to studies, the records that say how far a cell is from what is possible: the ceilings of the
# machine, the largest batch that fits, how far answers differ from those of the reference, and where the time of a call
# goes. No rule that measures cells has them as input, or a study done again would measure every cell again; collect
# reads them.


rule ceilings:
    """Measure what the machine does at its best: memory bandwidth, and matrix products per dtype.

    output: all samples, and the conditions meanwhile. The limits of cells follow from them.
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
        study=PLAN.study_json("ceilings"),
        # Not compared with those of an earlier run, because their types are not built-in.
        script=CODE / "scripts/study.py",
        watch=PLAN.watched,
    shell:
        "python {params.script:q}"
        " --study {params.study:q}"
        " --output {output:q}"
        " --timeout-s {params.watch.timeout_s}"
        " --sample-hz {params.watch.sample_hz}"
        " --exclusive {params.watch.exclusive}"
        " --device-name={params.watch.device_name:q}"
        " --attempt {resources.attempt}"
        " 2> {log:q}"


use rule ceilings as max_batch with:
    # The largest batch that fits: doubled until one fails, then halved in between, from where the records of cells leave
    # off. The record has every try with its evidence.
    output:
        update("results/{machine}/{column}/max-batch.json"),
    log:
        "logs/{machine}/{column}/max-batch.log",
    params:
        study=PLAN.study_json("max-batch"),


use rule ceilings as divergence with:
    # How far the answers of one engine and precision are from those of hf in fp32 to the same prompts.
    output:
        update("results/{machine}/{column}/divergence.json"),
    log:
        "logs/{machine}/{column}/divergence.log",
    priority: PLAN.priority_after_column
    params:
        study=PLAN.study_json("divergence"),


use rule ceilings as timeline with:
    # Where the time of a cell's calls goes: of each step, and by kind of work. With timeline_trace a Chrome trace lies
    # beside the record.
    output:
        update("results/{machine}/{column}/timeline-batch-{batch}.json"),
    log:
        "logs/{machine}/{column}/timeline-batch-{batch}.log",
    priority: PLAN.priority_after_column
    params:
        study=PLAN.study_json("timeline"),
