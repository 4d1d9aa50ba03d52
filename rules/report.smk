localrules:
    report,


rule report:
    """The summary as one HTML page: what was measured on what, tables, charts, provenance."""
    input:
        summary="results/{machine}/summary.csv",
        provenance="results/{machine}/provenance.json",
        template="report/report.html.j2",
        code=[
            "scripts/inference_benchmark/charts.py",
            "scripts/inference_benchmark/report.py",
            "scripts/inference_benchmark/tables.py",
        ],
    output:
        "results/{machine}/report.html",
    log:
        "logs/{machine}/report.log",
    conda:
        "../envs/benchmark.yaml"
    shell:
        "python scripts/report.py"
        " --summary {input.summary:q}"
        " --provenance {input.provenance:q}"
        " --template {input.template:q}"
        " --output {output:q}"
        " 2> {log:q}"
