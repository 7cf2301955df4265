"""Decisions: synchronous, without trio and without I/O."""
