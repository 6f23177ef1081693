"""Trains small pipelines from nothing: a VAE, a text encoder and a denoiser."""
