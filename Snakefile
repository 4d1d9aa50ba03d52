# Throughput and latency of text generation, one job and one record per cell. Start with README.md.

from snakemake.utils import min_version

min_version("9.27")


configfile: "config.yaml"


report: "report/workflow.rst"


include: "rules/common.smk"
include: "rules/measure.smk"
include: "rules/limits.smk"
include: "rules/aggregate.smk"
include: "rules/compare.smk"
include: "rules/report.smk"


localrules:
    all,


rule all:
    """Every cell and study of the experiment, and what is made from them."""
    default_target: True
    input:
        # The records stand here too, because Snakemake does not redo a deleted intermediate.
        RECORDS,
        STUDIES,
        expand(derived(ANY_MACHINE), machine=BY_MACHINE),
        overall(EXPERIMENTS),
