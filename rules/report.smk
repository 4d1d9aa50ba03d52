localrules:
    charts,
    report,
    report_of_all,
    preview,


rule charts:
    """The charts for a README, of one model and workload: light and dark, SVG and PNG."""
    input:
        summary="results/{machine}/summary.csv",
        comparisons=comparison_files(ANY_MACHINE, ("json",)),
        code=library("analysis", "engines", "experiment", "records", "compare", "render"),
    output:
        report(
            charts_of("{machine}", "{model}", "{workload}"),
            caption="../report/charts.rst",
            category="Charts",
            labels={"machine": "{machine}", "model": "{model}", "workload": "{workload}"},
        ),
    log:
        "logs/{machine}/charts/{model}-{workload}.log",
    conda:
        "../envs/benchmark.yaml"
    params:
        folder=charts_folder,
    shell:
        "python scripts/charts.py"
        " --summary {input.summary:q}"
        " --model {wildcards.model:q}"
        " --workload {wildcards.workload:q}"
        " --comparison {input.comparisons:q}"
        " --folder {params.folder:q}"
        " 2> {log:q}"


rule report:
    """The summary as one HTML page: the answer, charts, tables, baselines, conditions, provenance."""
    input:
        summary="results/{machine}/summary.csv",
        provenance="results/{machine}/provenance.json",
        comparisons=comparison_files(ANY_MACHINE, ("json",)),
        template="report/report.html.j2",
        parts=["report/base.html.j2", "report/tables.html.j2", "report/page.css", "report/page.js"],
        code=library("analysis", "engines", "experiment", "records", "compare", "render"),
    output:
        report(
            "results/{machine}/report.html",
            caption="../report/report.rst",
            category="Report",
            labels={"machine": "{machine}", "what": "the whole page"},
        ),
    log:
        "logs/{machine}/report.log",
    conda:
        "../envs/benchmark.yaml"
    shell:
        "python scripts/report.py"
        " --summary {input.summary:q}"
        " --provenance {input.provenance:q}"
        " --comparison {input.comparisons:q}"
        " --template {input.template:q}"
        " --output {output:q}"
        " 2> {log:q}"


use rule report as report_of_all with:
    # Several machines on one page.
    input:
        summary=expand("results/{machine}/summary.csv", machine=BY_MACHINE),
        provenance=expand("results/{machine}/provenance.json", machine=BY_MACHINE),
        comparisons=expand(comparison_files(ANY_MACHINE, ("json",)), machine=BY_MACHINE),
        template=rules.report.input.template,
        parts=rules.report.input.parts,
        code=rules.report.input.code,
    output:
        report(
            "results/report.html",
            caption="../report/report.rst",
            category="Report",
            labels={"machine": "all", "what": "the whole page"},
        ),
    log:
        "logs/report.log",


rule preview:
    """Tables and report from the records that there are, at any time, without measuring. Runs when asked for.

    It has no input and no output that Snakemake knows, so that it can be asked for while a run goes on.
    """
    log:
        "logs/preview.log",
    conda:
        "../envs/benchmark.yaml"
    params:
        experiments=[str(experiment.path) for experiment in EXPERIMENTS],
        folders=expand("results/{machine}/preview", machine=BY_MACHINE),
    shell:
        "python scripts/preview.py"
        " --experiment {params.experiments:q}"
        " --template report/report.html.j2"
        " --folder {params.folders:q}"
        " 2> {log:q}"
