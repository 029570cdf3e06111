"""The process that owns a session: scheduler, cluster, ledger, journal. No user code here."""
