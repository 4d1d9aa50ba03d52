# From a summary and a baseline to a comparison: how many times as fast each cell is as the same cell of another run, or
# of published figures. Tables, charts and report show it.


rule comparison:
    """Compare the cells of a machine with the same cells of a baseline: ratios, and which differences are significant.

    input: the records that the summary names are read for their samples.
    """
    input:
        base=PLAN.baseline,
        new="results/{machine}/summary.csv",
        template=CODE / "report/compare.html.j2",
        code=code("compare.py", "render"),
    output:
        json="results/{machine}/comparison/{baseline}.json",
        markdown=report(
            "results/{machine}/comparison/{baseline}.md",
            caption="../report/comparison.rst",
            category="Comparisons",
            labels={"machine": "{machine}", "baseline": "{baseline}"},
        ),
        html="results/{machine}/comparison/{baseline}.html",
    log:
        "logs/{machine}/comparison/{baseline}.log",
    localrule: True
    conda:
        "../envs/benchmark.yaml"
    shell:
        "python {input.code[0]:q} {input.base:q} {input.new:q}"
        " --base-name {wildcards.baseline:q}"
        " --allow-disjoint"
        " --template {input.template:q}"
        " --json {output.json:q}"
        " --markdown {output.markdown:q}"
        " --html {output.html:q}"
        " 2> {log:q}"


rule comparison_of_environments:
    """Compare the cells in an environment with the same cells in the current one, round by round.

    input: the records that the summary is made of are read again for their samples.
    """
    input:
        summary="results/{machine}/summary.csv",
        template=rules.comparison.input.template,
        code=rules.comparison.input.code,
    output:
        json="results/{machine}/comparison/current+{environment}.json",
        markdown=report(
            "results/{machine}/comparison/current+{environment}.md",
            caption="../report/comparison-of-environments.rst",
            category="Comparisons",
            labels={"machine": "{machine}", "baseline": "current", "environment": "{environment}"},
        ),
        html="results/{machine}/comparison/current+{environment}.html",
    log:
        "logs/{machine}/comparison/current+{environment}.log",
    localrule: True
    conda:
        "../envs/benchmark.yaml"
    params:
        records=subpath(input.summary, parent=True),
    shell:
        "python {input.code[0]:q} {params.records:q}"
        " --across environment current {wildcards.environment:q}"
        " --allow-disjoint"
        " --template {input.template:q}"
        " --json {output.json:q}"
        " --markdown {output.markdown:q}"
        " --html {output.html:q}"
        " 2> {log:q}"


rule compare:
    """Show the comparisons with every baseline of the configuration, and of environments. Runs only on request."""
    input:
        all_comparisons,
    log:
        "logs/compare.log",
    localrule: True
    conda:
        "../envs/benchmark.yaml"
    shell:
        "cat {input:q} 2> {log:q}"
