# From records to tables: the records and studies of a machine become one summary, a row per cell with every figure, and
# the summary becomes Markdown tables, also between the markers of a README.


rule collect:
    """One row per cell, from the records and the studies of the experiment.

    A file that is missing, broken, or of another configuration than today's is refused by name.
    """
    input:
        records=PLAN.records_of_machine,
        further=further_records,
        studies=PLAN.studies_of_machine,
        # A changed configuration is noticed in a fresh clone too, where Snakemake remembers no parameters.
        config=workflow.configfiles,
        code=code("collect.py", "records"),
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
    localrule: True
    conda:
        "../envs/benchmark.yaml"
    params:
        file=PLAN.experiment_file,
        experiment=PLAN.experiment_json,
    shell:
        "python {input.code[0]:q}"
        " --experiment {params.file:q}"
        " --summary {output.summary:q}"
        " --provenance {output.provenance:q}"
        " 2> {log:q}"


rule tables:
    """The summary as Markdown tables, one column per engine and precision, with columns for baselines."""
    input:
        summary="results/{machine}/summary.csv",
        provenance="results/{machine}/provenance.json",
        comparisons=comparison_files(PLAN.any_machine, ("json",)),
        code=code("tables.py", "render"),
    output:
        report(
            "results/{machine}/tables.md",
            caption="../report/tables.rst",
            category="Tables",
            labels={"machine": "{machine}", "what": "all tables, as Markdown"},
        ),
    log:
        "logs/{machine}/tables.log",
    localrule: True
    conda:
        "../envs/benchmark.yaml"
    shell:
        "python {input.code[0]:q}"
        " --summary {input.summary:q}"
        " --provenance {input.provenance:q}"
        " --comparison {input.comparisons:q}"
        " --output {output:q}"
        " 2> {log:q}"


rule readme:
    """Put charts and throughput of the configured machines between the markers in README.md. Runs only on request."""
    input:
        summary=expand("results/{machine}/summary.csv", machine=PLAN.machines),
        provenance=expand("results/{machine}/provenance.json", machine=PLAN.machines),
        charts=expand(chart_files(PLAN.any_machine), machine=PLAN.machines),
    log:
        "logs/readme.log",
    localrule: True
    conda:
        "../envs/benchmark.yaml"
    params:
        script=CODE / "scripts/readme.py",
        folders=expand("results/{machine}/charts", machine=PLAN.machines),
    shell:
        "python {params.script:q}"
        " --summary {input.summary:q}"
        " --provenance {input.provenance:q}"
        " --charts {params.folders:q}"
        " --readme README.md"
        " 2> {log:q}"
