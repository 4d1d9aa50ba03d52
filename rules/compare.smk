localrules:
    comparison,
    compare,


rule comparison:
    """One machine's cells beside the same cells of a baseline: the ratios, and what is more than noise.

    input: the records that the summary names are read for their samples.
    """
    input:
        base=baseline_path,
        new="results/{machine}/summary.csv",
        template="report/compare.html.j2",
        code=library("analysis", "experiment", "records", "compare", "render"),
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
    conda:
        "../envs/benchmark.yaml"
    shell:
        "python scripts/compare.py {input.base:q} {input.new:q}"
        " --base-name {wildcards.baseline:q}"
        " --template {input.template:q}"
        " --json {output.json:q}"
        " --markdown {output.markdown:q}"
        " --html {output.html:q}"
        " 2> {log:q}"


rule compare:
    """Show the comparisons with every baseline of the configuration. Runs when asked for."""
    input:
        all_comparisons,
    log:
        "logs/compare.log",
    conda:
        "../envs/benchmark.yaml"
    shell:
        "cat {input:q} 2> {log:q}"
