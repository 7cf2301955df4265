"""The benchmark: ``python -m benchmarks [--quick]``. Needs the extra ``bench``.

Besides it there is the chaos run, ``python -m benchmarks chaos``: see `benchmarks.chaos`; and
``python -m benchmarks held``, of how long single steps hold the event loop: see `benchmarks.held`.

The map.

What is measured:
    scenarios  the seed's six scenarios on a pool, each beside its control
    noop       requests that do nothing, and throughput_10ms, beside the peers
    boot       from `open_pool` to ready, and each worker's memory
    leaving    how long leaving an idle and a busy pool takes
    crash      from SIGKILL of a worker to its caller's error
    loop       how long the event loop is held by large payloads
    waiting    memory and dispatch time of requests that wait
    streams    chunks a second, their latency, and how far a generator runs ahead
    limits     time-outs and cancellation, which are two modules:
    timeouts   when a caller learns that its request's time is up
    cancelling how soon a cancelled request makes way for the next, and what it leaves
    months     what a pool has to bear that runs for months, which is three modules:
    renewing   clients of a pool that is reloaded and resized
    replacing  from SIGKILL of an idle worker until its slot is ready
    lasting    memory and descriptors over a million requests
    many       many slots: opening them, and deciding between them

What it is measured with:
    catalogue  the scenarios, and the seed's published figures
    work       what workers execute; imports neither trio nor rich
    control    bare processes that do the same work with no pool
    load       clients that call one request after the other
    peers      what trio_dirty is compared with, behind one interface
    executors  `ProcessPoolExecutor`, in a process of its own
    relay      stamps through a bare socket pair, beside those of streams
    polling    waiting for what is told only when it is asked for
    events     what a pool tells of its workers by itself
    notes      a number that an action writes down and the pool's process reads
    memory     resident memory
    child      programs of scripts/, run as processes
    scripts    programs whose own start or memory is measured
    figures    percentiles, and figures with their targets

What is shown and kept:
    display    progress between measured spans
    report     the tables
    record     the JSON
    arguments  what the command lines share
    cli        arguments, and which measurements they choose
"""
