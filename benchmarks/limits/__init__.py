"""Time-outs and cancellation: how soon they take effect, and what they leave behind."""
