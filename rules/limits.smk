rule ceilings:
    """Measure what the machine does at its best: memory bandwidth, and matrix products per dtype.

    output: all samples, and the state of the device meanwhile. How far a cell is from the limit follows from it.
    """
    output:
        update("results/{machine}/ceilings.json"),
    log:
        "logs/{machine}/ceilings.log",
    conda:
        "../envs/benchmark.yaml"
    resources:
        **ON_A_NODE,
        gpu=one_gpu,
        attempt=which_attempt,
    params:
        study=study_json,
        watch=WATCHED,
    shell:
        "python scripts/study.py"
        " --study {params.study:q}"
        " --output {output:q}"
        " --timeout-s {params.watch.timeout_s}"
        " --sample-hz {params.watch.sample_hz}"
        " --exclusive {params.watch.exclusive}"
        " --device-name={params.watch.device_name:q}"
        " --attempt {resources.attempt}"
        " 2> {log:q}"


rule max_batch:
    """Find the largest batch that fits: doubled until one fails, then halfway in between.

    output: every try with its evidence. Where it is there, measure refers to it instead of trying larger cells.
    """
    output:
        update("results/{machine}/{model}/{workload}/{engine}/{precision}/max-batch.json"),
    log:
        "logs/{machine}/{model}/{workload}/{engine}/{precision}/max-batch.log",
    # Before any cell, that those beyond the edge need not be tried; no input of measure, or a search done
    # again would measure every cell again.
    priority: len(CELLS) + 1
    conda:
        "../envs/benchmark.yaml"
    resources:
        **ON_A_NODE,
        gpu=one_gpu,
        attempt=which_attempt,
    params:
        study=study_json,
        watch=WATCHED,
    shell:
        "python scripts/study.py"
        " --study {params.study:q}"
        " --output {output:q}"
        " --timeout-s {params.watch.timeout_s}"
        " --sample-hz {params.watch.sample_hz}"
        " --exclusive {params.watch.exclusive}"
        " --device-name={params.watch.device_name:q}"
        " --attempt {resources.attempt}"
        " 2> {log:q}"


rule divergence:
    """Compare the answers of one engine and precision with those of hf in fp32, on the same prompts.

    output: agreement of tokens, error of logits, divergence of probabilities.
    """
    output:
        update("results/{machine}/{model}/{workload}/{engine}/{precision}/divergence.json"),
    log:
        "logs/{machine}/{model}/{workload}/{engine}/{precision}/divergence.log",
    conda:
        "../envs/benchmark.yaml"
    resources:
        **ON_A_NODE,
        gpu=one_gpu,
        attempt=which_attempt,
    params:
        study=study_json,
        watch=WATCHED,
    shell:
        "python scripts/study.py"
        " --study {params.study:q}"
        " --output {output:q}"
        " --timeout-s {params.watch.timeout_s}"
        " --sample-hz {params.watch.sample_hz}"
        " --exclusive {params.watch.exclusive}"
        " --device-name={params.watch.device_name:q}"
        " --attempt {resources.attempt}"
        " 2> {log:q}"
