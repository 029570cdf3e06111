"""Code that runs in a worker process or in its nanny."""
