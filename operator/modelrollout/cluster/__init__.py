"""Kubernetes: the port that `modelrollout.reconcile` declares, on the API server."""
