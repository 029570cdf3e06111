"""The subcommands of ``%scalable`` and of the command line, all made from one table."""
