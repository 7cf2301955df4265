"""The trio tasks of a pool, each with one job."""
