# From the records of the rounds of the whole grid to further rounds of single cells: in how many rounds each is measured,
# where measurement.rounds has least and most. Else nothing asks for it.


checkpoint rounds:
    """Decide in how many rounds each cell is measured, once the whole grid has been measured as often as configured.

    output: for each cell the number of rounds, and the half width of its interval after those of the whole grid. It
    follows from the input alone. The records of further rounds then become targets of rule all and input of collect.
    """
    input:
        records=PLAN.records_of_machine,
    output:
        "results/{machine}/rounds.json",
    log:
        "logs/{machine}/rounds.log",
    # Before studies that come after all cells.
    priority: 1
    localrule: True
    conda:
        "../envs/benchmark.yaml"
    params:
        script=CODE / "scripts/rounds.py",
        file=PLAN.experiment_file,
        experiment=PLAN.experiment_json,
    shell:
        "python {params.script:q} --experiment {params.file:q} --output {output:q} 2> {log:q}"
