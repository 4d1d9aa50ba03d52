rule measure:
    """Measure one cell in a process of its own.

    output: its record: the samples, or the evidence that it did not fit or cannot be done. An earlier
    record is not removed first (update) but kept beside the new one.
    """
    output:
        update("results/{machine}/{model}/{workload}/{engine}/{precision}/batch-{batch_size}.json"),
    log:
        "logs/{machine}/{model}/{workload}/{engine}/{precision}/batch-{batch_size}.log",
    priority: cell_priority
    group:
        cells_of_a_job
    conda:
        "../envs/benchmark.yaml"
    resources:
        **ON_A_NODE,
        # The slot to measure in, on a machine without a GPU too: cells side by side would slow each other.
        gpu=one_gpu,
        attempt=which_attempt,
    params:
        cell=cell_json,
        watch=WATCHED,
    shell:
        "python scripts/measure.py"
        " --cell {params.cell:q}"
        " --output {output:q}"
        " --timeout-s {params.watch.timeout_s}"
        " --sample-hz {params.watch.sample_hz}"
        " --exclusive {params.watch.exclusive}"
        " --device-name={params.watch.device_name:q}"
        " --attempt {resources.attempt}"
        " 2> {log:q}"
