"""The library behind the rules and scripts of inference-benchmark.

Layers, each importing only from those above it:

    units, metrics, precision, cells     pure: names, figures and formulas
    config, architecture, machine        the experiment: what is to be measured, on what
    record, evidence, provenance         what a finished cell leaves behind
    checkpoint, synthesize               the weights every engine and precision loads
    engines/, worker                     the child process; only engines import torch
    supervise                            the parent: starts the worker, classifies how it ended
    collect, tables, charts, report      records -> what a person reads
    readme, freshness, progress          tables into README, derived files, the line per cell

Everything outside engines/ and synthesize can be imported without torch.
"""
