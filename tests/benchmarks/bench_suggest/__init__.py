"""How long one suggestion takes and how much memory, beside other optimizers, in one run: ``make bench-suggest``.

:mod:`task`        the search space and the observations that every method is given
:mod:`methods`     ours and the others behind one interface
:mod:`worker`      a method in a process of its own, so that its memory is its own
:mod:`rounds`      interleaved rounds over these processes, with a limit on each suggestion
:mod:`service`     the real gRPC service in a process, asked for 100 experiments
:mod:`table`       statistics, the Markdown tables, the JSON file
"""
