"""What runs inside a worker process. Imports nothing that imports trio."""
