"""What is shown and kept: progress, tables, the JSON."""
