"""The library behind the rules and scripts of inference-benchmark.

Layers, each importing only from those above it:

    cli, units, metrics, precision, cells   pure: names, figures and formulas
    architecture, machine                what can be asked of this installation and this machine
    checkpoint, synthesize               the weights every engine and precision loads
    config, config_words                 the experiment, or all that is wrong with it
    record, evidence, provenance         what a finished cell leaves behind
    engines/, worker                     the child process; only engines import torch
    supervise                            the parent: starts the worker, classifies how it ended
    collect, tables, charts, report      records -> what a person reads
    readme, freshness, progress          tables into README, derived files, the line per cell

Everything outside engines/ and synthesize can be imported without torch.
"""
