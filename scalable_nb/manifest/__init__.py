"""``scalable.yaml``: its schema, how it is read, and the plan made from it."""
