"""Benchmarks of replog: one file per question, beside the floor of the machine they run on.

::

    python -m benchmarks                        # floor, latency and throughput: about a minute
    python -m benchmarks latency --repeats 3    # one question, with its spread
    python -m benchmarks --agreement paxos      # the same of Multi-Paxos
    python -m benchmarks agreements             # Raft and Multi-Paxos beside each other
    python -m benchmarks failover loss          # leaders killed; a network that loses messages
    python -m benchmarks snapshot recovery space   # large states, long logs, bounded files: 5 GB
    python -m benchmarks --write                # keep the figures in benchmarks/results/

Every figure comes from three replicas as three processes on loopback (`loss`: in one process;
`recovery` and `space`: one node) that sync to disk before they acknowledge. A figure alone moves by
tens of percent from hour to hour: compare ratios of one run.
"""
