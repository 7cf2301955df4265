"""Programs whose own start or memory is measured. Each prints one line of JSON."""
