# Throughput and latency of text generation, one job and one record per cell. Start with README.md.

from snakemake.utils import min_version

min_version("9.27")


report: "report/workflow.rst"


include: "rules/common.smk"


rule all:
    """All records, tables, charts and pages of the configuration. The default target."""
    input:
        # If a record is deleted while the summary exists, Snakemake makes it again only as a target.
        list(PLAN.cells),
        all_further_records,
        PLAN.requested_studies,
        expand(derived(PLAN.any_machine), machine=PLAN.machines),
        overall(PLAN.experiments),
    localrule: True


include: "rules/measure.smk"
include: "rules/rounds.smk"
include: "rules/studies.smk"
include: "rules/aggregate.smk"
include: "rules/compare.smk"
include: "rules/history.smk"
include: "rules/report.smk"
