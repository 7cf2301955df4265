"""What single things cost: starting, crashing, leaving, waiting, payloads, streams, many slots."""
