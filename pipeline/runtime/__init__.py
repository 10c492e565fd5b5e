"""Steps, runs and artifacts. Knows nothing of images or models.

**Records.** The truth about a run is a set of small records, each written once: the run was opened, an attempt
started, an attempt ended. `manifest.json` is rendered from them after each, and checked again after it is written,
so that the last of several writers includes every record. There is no read-modify-write and no lock. A process that
is killed between record and manifest leaves the manifest one record behind, until the next record or `verify`; no
command reads it back. Each record carries its schema: older ones are read, newer ones refused.

**Liveness.** A record names the process of the attempt: machine, boot, process id and start time. So a killed
attempt is told from a running one on the same machine; on another machine that cannot be known, and commands say
so. The next command that touches the run ends a killed attempt's record.

**Continuing.** The command that opened a run continues it if it did not end: same steps, parameters and code, and
neither its opener nor an attempt still alive. Any other command opens a new run, which reuses what still holds. If
two processes continue one run at once, work is done twice and nothing is lost. A step finds in `step.resume` what
an earlier attempt on this machine with the same fingerprint left. `--force` starts without it.

**Inputs agree.** `inputs.require_agreement` searches for one attempt at each step that accounts for everything: the
inputs, what the attempts that made them read, and so on upwards. Artifacts are compared by digest, so a rerun that
made the same bytes agrees, and so does one that differs only in an output that was not used. The run's own records
are searched first, those of other runs only if these do not settle it. An artifact without any record of its
descent agrees with nothing. The check is on the pinned digests, so it holds whatever other processes do meanwhile.

An input chosen by hand (`--input`) is exempt at that step only: what the step makes descends from it. The record,
and those of later steps, say that it was chosen, and it is part of their fingerprints.

**Earlier runs.** A step may declare that it compares an input with that of an earlier run: of the newest complete one
that has another artifact, so a repeated command finds the same one and is reused. It is pinned and kept like any input,
but need not agree with the others. `rerun` looks before the run that it repeats.

**Reuse.** A fingerprint is the SHA-256 of the notebook's cells, all parameters, the digests of the inputs, and the
sources of the domain modules that the notebook imports, directly or not, or carries as files (`CARRIES`). A success
with the same fingerprint anywhere in the same mode is reused, and the record says from where. The runtime's own
code is not part of it: it decides when a step runs, not what the step computes.

**Order.** Run ids sort by time. If the clock is behind the newest run, the next id takes that run's time plus a
millisecond, so the newest run stays the one that was opened last.

**Publishing.** A step publishes in one place, `step.commit`; a step that fails before it has published nothing. The
quality gate decides after the outputs are stored, because the report of a bad model is worth reading: the attempt
is recorded as failed with its outputs, and nothing builds on them.
"""
