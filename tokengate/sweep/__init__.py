"""The sweep: which number of workers, of calls in flight, and which lane suit this machine.

One module, one subject::

    intervals    the median of few measurements, and how far it can be trusted
    setting      one combination of lane, workers, calls in flight and pinning; the grid of them
    load         the calls that are made
    measure      one setting, measured once
    record       what was measured, block by block, and the figures that follow from it
    knee         the smallest setting that can not be told from the best
    runner       all blocks, each in a random order of its own; Ctrl-C included
    report       the text    plot  the picture    export  the JSON and the profile
    command      ``python -m tokengate sweep``

A *block* measures every setting once. What disturbs the machine for a while disturbs a whole block,
so settings are compared within blocks. docs/sweep.md tells how to read the result.
"""
