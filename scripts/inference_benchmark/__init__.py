"""The library behind the rules and scripts of inference-benchmark.

Layers, each importing only from those above it:

    cli, units, precision, cells         pure: names and what they stand for
    statistics, metrics                  pure: figures, intervals, verdicts; a formula each, in one place
    architecture, machine                what can be asked of this installation and this machine
    checkpoint, synthesize               the weights every engine and precision loads
    config, config_words                 the experiment, or all that is wrong with it
    record, evidence, provenance         what a finished cell leaves behind
    engines/, energy, worker             the child process; only engines import torch
    host_counters, conditions            what device and machine do meanwhile
    worker_process                       the parent's side of the child: what it is told and tells
    lease, supervise                     the parent: a device, its workers, how they ended
    comparability, collect               records -> one table, or why they cannot stand in one
    tables, charts, report               what a person reads
    readme, freshness, progress          tables into README, derived files, the line per cell

Everything outside engines/ and synthesize can be imported without torch.
"""
