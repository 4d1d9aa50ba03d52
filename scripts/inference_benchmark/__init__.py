"""The library behind the rules and scripts of inference-benchmark.

Layers, each importing only from those above it, and in a line from what stands to the left:

    cli, units, files, markdown, cells   pure: names and what they stand for; how a file is written
    slurm                                what a scheduler says of its jobs
    statistics, roofline                 pure: intervals, verdicts; the least time a cell can take
    ceilings, metrics                    pure: what a machine can do, figures; a formula each, in one place
    edge, answers                        pure: where memory ends; how far two sets of answers are apart
    architecture, machine                what can be asked of this installation and this machine
    checkpoint, synthesize               the weights every engine and precision loads
    engines/                             what generates, behind one protocol
    studies                              what is found out beside the cells
    evidence, provenance                 what the kernel knows, and where a figure comes from
    record, study_files                  what a finished cell or study leaves behind
    attempts, merge                      what failed attempts leave; records measured elsewhere
    comparability, sides                 which facts must agree; what can be compared: records, or figures
    config_words, config                 the experiment, or all that is wrong with it
    host_counters, conditions, energy    what device and machine do meanwhile
    worker, tasks/                       the child process; the worker imports from tasks/ as it runs
    worker_process, lease, station       the parent: its side of the child, a device, how its workers ended
    supervise, conduct                   one cell, or one study, from its device to its file
    command                              their command line
    summary, collect                     files -> one table, or why they cannot stand in one
    comparison, comparison_text          two sides, cell by cell: ratios, and what is more than noise
    columns, cell_texts, beside, tables  what tables show, baselines beside the cells
    tips, charts, drawing                what charts show, and how they are drawn
    page, report, preview, words         what a person reads
    outputs, readme, freshness, progress derived files, charts and tables into README, the line per cell

Only the engines' own modules, tasks/ceilings and synthesize need torch: everything else can be imported without.
"""
