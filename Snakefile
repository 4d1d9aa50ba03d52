# Throughput and latency of text generation, one job and one record per cell. Start with README.md.

from snakemake.utils import min_version

min_version("9.27")


configfile: "config.yaml"


include: "rules/common.smk"
include: "rules/measure.smk"
include: "rules/limits.smk"
include: "rules/aggregate.smk"
include: "rules/report.smk"


localrules:
    all,


rule all:
    """Every cell and study of the experiment, and the tables and the report made from them."""
    default_target: True
    input:
        # The records stand here too, because Snakemake does not redo a deleted intermediate.
        RECORDS,
        STUDIES,
        f"results/{EXPERIMENT.machine}/summary.csv",
        f"results/{EXPERIMENT.machine}/tables.md",
        f"results/{EXPERIMENT.machine}/report.html",
