"""The library behind the rules and scripts of inference-benchmark.

A package imports from itself and from those above it, and from nothing else of this library:

    cli, csv_table, files, markdown, units   small things that all may use
    analysis/    pure formulas over samples: statistics, metrics, the roofline, how far answers differ
    machine/     what this machine is, and what it does while a cell is measured
    models/      a model's sizes and weights
    engines/     what generates text, behind one protocol
    results/     one type from the record to the page
    experiment/  what to measure: configuration, cells, studies, and the files that follow from them
    records/     what a finished cell or study leaves behind, and what may stand in one table
    compare/     two sets of results, cell by cell, and many over time
    measure/     the parent process of a measurement: from a device to a record
    worker/      the child process, which loads a model and times it
    render/      what a person reads: tables, charts, report, lines on a terminal

measure/ starts worker/ as a process of its own and does not import it. Only the engines' own modules,
worker/ceilings and models/synthesize import torch; everything else can be imported without.
"""
