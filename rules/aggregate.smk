localrules:
    collect,
    tables,
    readme,


rule collect:
    """One row per cell, from the records and the studies of the experiment.

    A file that is missing, broken, or of another configuration than today's is refused by name.
    """
    input:
        records=RECORDS,
        studies=STUDIES,
        # A changed configuration is noticed in a fresh clone too, where Snakemake remembers no parameters.
        config=workflow.configfiles,
    output:
        summary="results/{machine}/summary.csv",
        provenance="results/{machine}/provenance.json",
    log:
        "logs/{machine}/collect.log",
    conda:
        "../envs/benchmark.yaml"
    params:
        experiment=experiment_json,
    shell:
        "python scripts/collect.py"
        " --experiment {params.experiment:q}"
        " --summary {output.summary:q}"
        " --provenance {output.provenance:q}"
        " 2> {log:q}"


rule tables:
    """The summary as Markdown tables, throughput and latency, one column per precision."""
    input:
        summary="results/{machine}/summary.csv",
        code="scripts/inference_benchmark/tables.py",
    output:
        "results/{machine}/tables.md",
    log:
        "logs/{machine}/tables.log",
    conda:
        "../envs/benchmark.yaml"
    shell:
        "python scripts/tables.py" " --summary {input.summary:q}" " --output {output:q}" " 2> {log:q}"


rule readme:
    """Put the tables of the configured machine between the markers in README.md. Runs when asked for."""
    input:
        tables=f"results/{EXPERIMENT.machine}/tables.md",
        provenance=f"results/{EXPERIMENT.machine}/provenance.json",
    log:
        f"logs/{EXPERIMENT.machine}/readme.log",
    conda:
        "../envs/benchmark.yaml"
    shell:
        "python scripts/readme.py"
        " --tables {input.tables:q}"
        " --provenance {input.provenance:q}"
        " --readme README.md"
        " 2> {log:q}"
