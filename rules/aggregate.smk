localrules:
    collect,
    tables,
    readme,


rule collect:
    """One row per cell, from the records and the studies of the experiment.

    A file that is missing, broken, or of another configuration than today's is refused by name.
    """
    input:
        records=records_of_machine,
        studies=studies_of_machine,
        # A changed configuration is noticed in a fresh clone too, where Snakemake remembers no parameters.
        config=workflow.configfiles,
        code=library("analysis", "engines", "experiment", "machine", "records"),
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
        file=experiment_file,
        experiment=experiment_json,
    shell:
        "python scripts/collect.py"
        " --experiment {params.file:q}"
        " --summary {output.summary:q}"
        " --provenance {output.provenance:q}"
        " 2> {log:q}"


rule tables:
    """The summary as Markdown tables, one column per engine and precision, baselines beside them."""
    input:
        summary="results/{machine}/summary.csv",
        comparisons=comparison_files(ANY_MACHINE, ("json",)),
        code=library("analysis", "engines", "experiment", "records", "compare", "render"),
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
    """Put charts and tables of the configured machines between the markers in README.md. Runs when asked for."""
    input:
        summary=expand("results/{machine}/summary.csv", machine=BY_MACHINE),
        provenance=expand("results/{machine}/provenance.json", machine=BY_MACHINE),
        comparisons=expand(comparison_files(ANY_MACHINE, ("json",)), machine=BY_MACHINE),
        charts=expand(chart_files(ANY_MACHINE), machine=BY_MACHINE),
    log:
        "logs/readme.log",
    conda:
        "../envs/benchmark.yaml"
    params:
        folders=expand("results/{machine}/charts", machine=BY_MACHINE),
    shell:
        "python scripts/readme.py"
        " --summary {input.summary:q}"
        " --provenance {input.provenance:q}"
        " --comparison {input.comparisons:q}"
        " --charts {params.folders:q}"
        " --readme README.md"
        " 2> {log:q}"
