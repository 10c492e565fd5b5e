"""Where a step's notebook runs: on this machine, or on a cluster.

The runner resolves inputs, starts the record and ends it; an engine does what lies between. Both engines execute an
attempt with the same code, `attempt`, so that a step cannot tell where it runs.
"""
