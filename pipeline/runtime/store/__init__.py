"""Content-addressed artifacts on local disk or behind any fsspec URL.

    <store>/<zone>/<mode>/objects/ab/ab34…        the bytes of one file, kept once however many artifacts hold them
                          artifacts/NAME/VERSION  the index; written last, it is the marker
                          runs/RUN/…              records, manifest.json, notebooks as they ran

VERSION is the SHA-256 of the index, which lists path, size and SHA-256 of each file. Equal folders have equal URLs,
and splitting a dataset copies no image. On a local store a step's inputs are hard links to read-only objects.

**All or nothing.** Contents are written first, the marker last. On disk: a temporary name, fsync, rename, fsync of
the folder. A marker or record is hard-linked instead of renamed, because a link refuses a name that is taken. On an
object store single writes are atomic by themselves.

**Write-once.** `create` says whether the stored content is the caller's, not whether this call wrote it. So a put
whose answer was lost, which the SDK repeats and the store then refuses, is recognised as one's own: records carry
an id of their own, and equal indexes mean the same artifact. Whether a place honours create-if-absent is tried once
for each store and noted in `abilities.json`; where it does not, each process warns "single writer only".

**Places that cut files**, such as network disks without hard links and conditional writes: a record ends in a line
of its own. A record without it was cut before anybody was told that it had been written, and counts as not written.
`verify` names it.

**Checked on read.** Content that arrives damaged is checked where it lies. If it is damaged there, it is set aside
(`.damaged`), so that the next put of the right bytes is not skipped; otherwise it is fetched again. At commit, a
step's inputs are compared with what they were when they were laid out; a changed one fails the step. A `put` trusts
an object with the right digest and size; `get` and `verify` do not.

**Fetched once.** A machine keeps what it fetches from a remote store, or puts there, in `.cache/objects` of the
project, so that its next step gets links to it. Each use is checked like a download. The cache takes at most half of
the space that is free or its own, and what was not used for longest goes first. It can be removed at any time.

**Garbage.** An artifact is in use if any attempt of a kept run has it as input or output. Collection spares what is
younger than a day, or than twelve hours before the oldest running attempt. A put or a reuse therefore renews what
it counts on when that is older than twelve hours, and checks it once more after the marker. On disk, collection
takes a file's name away and then checks its age again, so there is no moment in between. On an object store that
second check leaves a window of milliseconds. While a run or an index cannot be read, nothing is collected.

**Errors** of any place become `StoreError`, with what to do. s3fs and botocore first retry by themselves, for some
ten seconds.
"""
