"""A storm over a session at work, and the check that nothing was lost in it."""
