"""How long any step holds the event loop: ``python -m benchmarks held``.

Each row is an event of some size: a payload that crosses, or something that happens to a pool
where many requests wait. While it lasts, an instrument of trio's measures the CPU time of the
loop's thread in each step of each task, and between the steps; the longest one counts. No step
should take longer than the pool promises to hold the loop.

The map.

    watch           the instrument, and a task that only takes its turns
    event           what a row is made of
    payloads        what is sent and returned; workers import it: it imports neither trio nor rich
    payload_events  events with payloads, on worker processes
    crowds          pools of simulated workers where many requests wait
    crowd_events    events with such pools
    control         the same without a pool
    catalogue       all events
    run             rounds of events
    report          the table and the JSON
    cli             arguments

Three things are left out on purpose. What trio alone takes to cancel as many tasks in one step is
measured beside it, and subtracted. The garbage collector does not run during an event: a full
collection takes the longer the more objects the program has, and would hit whichever step came
then. And steps of simulated workers are not counted: in a program they are other processes.
"""
