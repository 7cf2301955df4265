"""What starts workers and carries frames to and from them."""
