"""What a failure is, whether it is retried, and which failures belong together: pure decisions."""
