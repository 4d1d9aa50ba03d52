# From the results of several runs, kept over time, to one page: a line per column, and the steps with what changed.


rule history:
    """Show the results of this and earlier runs over time, on one page. Runs only on request.

    It declares no output, so that each request makes the page of the records that are there now.
    """
    input:
        summaries=expand("results/{machine}/summary.csv", machine=PLAN.machines),
        earlier=PLAN.history,
        template=CODE / "report/history.html.j2",
        code=code("history.py", "render"),
    log:
        "logs/history.log",
    localrule: True
    conda:
        "../envs/benchmark.yaml"
    params:
        page="results/history.html",
    shell:
        "python {input.code[0]:q} {input.earlier:q} {input.summaries:q}"
        " --template {input.template:q}"
        " --html {params.page:q}"
        " 2> {log:q}"
