"""The benchmark: ``python -m benchmarks [--quick]``. Needs the extra ``bench``.

Besides it there is the chaos run, ``python -m benchmarks chaos``, and ``python -m benchmarks
held``, of how long single steps hold the event loop.

The map.

    cli         the command line, and which measurements it chooses
    work        what workers execute; imports neither trio nor rich

comparison/: a pool beside bare processes and other libraries.
    catalogue   the six scenarios, and the figures published for gunicorn's dirty arbiter
    scenarios   the scenarios on a pool, each beside its control
    control     bare processes that do the same work with no pool
    noop        requests that do nothing, and throughput_10ms, beside the peers
    peers       what trio_dirty is compared with, behind one interface
    executors   the process pools of the standard library, in a process of their own

costs/: what single things cost.
    boot        from `open_pool` to ready, and each worker's memory
    leaving     how long leaving an idle and a busy pool takes
    crash       from SIGKILL of a worker to its caller's error
    loop        how long the event loop is held by large payloads
    waiting     memory and dispatch time of requests that wait
    streams     chunks a second, their latency, and how far a generator runs ahead
    relay       stamps through a bare socket pair, beside those of streams
    many        many slots: opening them, and deciding between them

limits/: time-outs and cancellation.
    run         all of it, on one worker
    timeouts    when a caller learns that its request's time is up
    cancelling  how soon a cancelled request makes way for the next, and what it leaves

endurance/: what a pool has to bear that runs for months.
    run         all of it, one pool after the other
    renewing    clients of a pool that is reloaded and resized
    replacing   from SIGKILL of an idle worker until its slot is ready
    lasting     memory and descriptors over a million requests

chaos/: a pool at full speed whose workers are killed; it has a map of its own.

held/: how long single steps hold the event loop; it has a map of its own.

scripts/: programs whose own start or memory is measured.

harness/: what measurements are made with.
    figures     percentiles, and figures with their targets
    load        clients that call one request after the other
    polling     waiting for what is told only when it is asked for
    events      what a pool tells of its workers by itself
    notes       a number that an action writes down and the pool's process reads
    process     memory, descriptors and children of this process
    words       numbers and errors in words
    child       programs of scripts/, run as processes

output/: what is shown and kept.
    display     progress between measured spans
    report      the tables
    record      the JSON
    arguments   what the command lines share
"""
