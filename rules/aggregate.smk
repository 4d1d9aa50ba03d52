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
        summary=report(
            "results/{machine}/summary.csv",
            caption="../report/summary.rst",
            category="Tables",
            labels={"machine": "{machine}", "what": "every figure, as CSV"},
        ),
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
    """The summary as Markdown tables, one column per engine and precision, baselines beside them."""
    input:
        summary="results/{machine}/summary.csv",
        comparisons=comparison_files(EXPERIMENT, ("json",)),
        code=[
            "scripts/inference_benchmark/beside.py",
            "scripts/inference_benchmark/cell_texts.py",
            "scripts/inference_benchmark/tables.py",
        ],
    output:
        report(
            "results/{machine}/tables.md",
            caption="../report/tables.rst",
            category="Tables",
            labels={"machine": "{machine}", "what": "all tables, as Markdown"},
        ),
    log:
        "logs/{machine}/tables.log",
    conda:
        "../envs/benchmark.yaml"
    shell:
        "python scripts/tables.py"
        " --summary {input.summary:q}"
        " --comparison {input.comparisons:q}"
        " --output {output:q}"
        " 2> {log:q}"


rule readme:
    """Put charts and tables of the configured machine between the markers in README.md. Runs when asked for."""
    input:
        summary=f"results/{EXPERIMENT.machine}/summary.csv",
        provenance=f"results/{EXPERIMENT.machine}/provenance.json",
        comparisons=comparison_files(EXPERIMENT, ("json",)),
        charts=chart_files(EXPERIMENT),
    log:
        f"logs/{EXPERIMENT.machine}/readme.log",
    conda:
        "../envs/benchmark.yaml"
    params:
        folder=charts_folder,
    shell:
        "python scripts/readme.py"
        " --summary {input.summary:q}"
        " --provenance {input.provenance:q}"
        " --comparison {input.comparisons:q}"
        " --charts {params.folder:q}"
        " --readme README.md"
        " 2> {log:q}"
