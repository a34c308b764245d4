"""The wave benchmark: batches of varied tokens that double in size, and what they tell.

One module, one subject::

    plan         which wave sizes to run
    mix          which call is token i of a wave
    tasks        the four reference tasks
    lanes        the same calls on a lane of choice
    heartbeat    how late the event loop runs while a wave is on
    children     what worker processes burn
    measure      one wave, timed; the same calls in a plain loop
    check        is every result right?
    record       what was measured, and the figures that follow from it
    sweet_spot   the smallest wave at full speed, and the plateau behind it
    environment  on what it was measured
    runner       all waves in order, Ctrl-C included
    report       the text    plot  the picture    export  the JSON
    progress     the live line on a terminal
    options      what the options of this command and of ``sweep`` share
    command      ``python -m tokengate wave``

Everything but ``tasks``, ``lanes`` and ``command`` is free of the coordinator: it gets what it
needs as arguments, so that other batches can be measured with the same parts.
"""
