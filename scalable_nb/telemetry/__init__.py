"""What happened: rows, the live ledger of all tasks, and the journal on disk."""
