"""Evidence from Prometheus: batched queries, a guarded connection, one snapshot for everybody."""
