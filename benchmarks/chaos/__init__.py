"""The chaos run: ``python -m benchmarks chaos``. A real pool at full speed, and its workers die.

Clients call one request after the other, with keys and limits, large payloads and streams among
them, and leave some of them, while workers are killed, stopped and starved at
random moments, and while the pool is resized, reloaded, and its workers recycled. Afterwards
what the workers wrote down is compared with what the clients were told: nothing may be lost,
nothing begun twice, and no death may cost more than one request for each thread of the worker.

The map.

Decide: synchronous, knows nothing of trio.
    plan       who does what and when, from the seed
    journal    what is written down, by workers and by clients, and how it is read
    judge      what became of each request, and whether it may have

Perform: trio.
    clients    what calls and cancels requests, and checks what it gets
    agents     what kills, stops and starves workers
    processes  worker processes, held by descriptors that cannot go stale
    census     processes, descriptors, threads and memory of this program
    stderr     what starved workers write to standard error, out of the way
    run        all of it, from before the pool is opened until after it is closed

Child:
    work       what workers execute and write down; imports neither trio nor rich

What is kept:
    record     the JSON
    cli        arguments

The same seed means the same decisions: which faults come, when, and for which place in the list
of the processes there are; what each client calls and when it leaves. Processes are not
deterministic, and neither is which request a fault meets.
"""
