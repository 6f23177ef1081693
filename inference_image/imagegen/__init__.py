"""An image server for diffusion models that can be judged: metrics, limits, repeatable pictures."""
