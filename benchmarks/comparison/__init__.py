"""A pool beside bare processes and beside other libraries, at the same work."""
