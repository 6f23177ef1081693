"""A real single-node Kubernetes on one machine, without Docker, for tests and the demo."""
