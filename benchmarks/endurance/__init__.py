"""What a pool has to bear that runs for months: changes of its size, new code, deaths, and use."""
