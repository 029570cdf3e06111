"""A real Slurm of one's own on this machine, for development, tests and demonstrations.

``python -m scalable_nb.devslurm up`` starts Debian's daemons as the current user, without
systemd, cgroups or root. Everything they write lies in one private folder.
"""
