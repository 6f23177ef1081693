"""Simulations of the decision engine: `python -m benchmarks` makes the tables of the docs."""
