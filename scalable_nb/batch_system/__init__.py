"""Jobs of Slurm and other batch systems: queue state, outcomes, logs."""
