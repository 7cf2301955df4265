"""What the pool and its workers have in common. Imports no trio."""
