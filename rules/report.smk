# From a summary to what people look at: charts as files for a README, the report as one HTML page, and a preview of both
# while cells are being measured, and after a run in which jobs failed.


rule charts:
    """The charts of one model for a README, of each workload: light and dark, SVG and PNG."""
    input:
        summary="results/{machine}/summary.csv",
        comparisons=comparison_files(PLAN.any_machine, ("json",)),
        code=code("charts.py", "render"),
    output:
        report(
            charts_of(PLAN.any_machine, "{model}"),
            caption="../report/charts.rst",
            category="Charts",
            labels={"machine": "{machine}", "model": "{model}"},
        ),
    log:
        "logs/{machine}/charts/{model}.log",
    localrule: True
    conda:
        "../envs/benchmark.yaml"
    params:
        folder=subpath(output[0], parent=True),
    shell:
        "python {input.code[0]:q}"
        " --summary {input.summary:q}"
        " --model {wildcards.model:q}"
        " --comparison {input.comparisons:q}"
        " --folder {params.folder:q}"
        " 2> {log:q}"


rule report:
    """The summary as one HTML page: the answer, charts, tables, baselines, conditions, provenance."""
    input:
        summary="results/{machine}/summary.csv",
        provenance="results/{machine}/provenance.json",
        comparisons=comparison_files(PLAN.any_machine, ("json",)),
        template=CODE / "report/report.html.j2",
        parts=[
            CODE / "report" / part
            for part in (
                *("base.html.j2", "charts.html.j2", "choose.html.j2", "context.html.j2", "tables.html.j2"),
                *("page.css", "page.js", "choose.js"),
            )
        ],
        code=code("report.py", "render"),
    output:
        report(
            "results/{machine}/report.html",
            caption="../report/report.rst",
            category="Report",
            labels={"machine": "{machine}", "what": "the whole page"},
        ),
    log:
        "logs/{machine}/report.log",
    localrule: True
    conda:
        "../envs/benchmark.yaml"
    params:
        threads=lambda wildcards: thread_trials([wildcards.machine]),
    shell:
        "python {input.code[0]:q}"
        " --summary {input.summary:q}"
        " --provenance {input.provenance:q}"
        " --comparison {input.comparisons:q}"
        " --threads {params.threads:q}"
        " --template {input.template:q}"
        " --output {output:q}"
        " 2> {log:q}"


use rule report as report_of_all with:
    # Several machines on one page.
    input:
        summary=expand("results/{machine}/summary.csv", machine=PLAN.machines),
        provenance=expand("results/{machine}/provenance.json", machine=PLAN.machines),
        comparisons=expand(comparison_files(PLAN.any_machine, ("json",)), machine=PLAN.machines),
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
    localrule: True
    params:
        threads=thread_trials(PLAN.machines),


# The command of rule preview, with its params and log.
PREVIEW = (
    "python {params.script:q}"
    " --experiment {params.experiments:q}"
    " --template {params.template:q}"
    " --folder {params.folders:q}"
    " 2> {log:q}"
)


rule preview:
    """Tables and report from the existing records, at any time, without measuring. Runs on request, and at the end of a
    run in which jobs failed.

    It declares no input and no output, so that it can run while another run measures: Snakemake locks files.
    """
    log:
        "logs/preview.log",
    localrule: True
    conda:
        "../envs/benchmark.yaml"
    params:
        script=CODE / "scripts/preview.py",
        template=CODE / "report/report.html.j2",
        experiments=[str(experiment.path) for experiment in PLAN.experiments],
        folders=expand("results/{machine}/preview", machine=PLAN.machines),
    shell:
        PREVIEW
