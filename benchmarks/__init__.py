"""Benchmarks of replog: one file per question, beside the floor of the machine they run on.

::

    python -m benchmarks                        # everything, in about a minute
    python -m benchmarks latency --repeats 3    # one question, with its spread
    python -m benchmarks --write                # keep the figures in benchmarks/results/

Every figure comes from three replicas as three processes on loopback that sync to disk before they
acknowledge. A figure alone moves by tens of percent from hour to hour: compare ratios of one run.
"""
