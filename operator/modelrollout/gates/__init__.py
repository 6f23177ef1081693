"""The judge: from evidence to verdicts. Pure functions; no I/O and no clock."""
