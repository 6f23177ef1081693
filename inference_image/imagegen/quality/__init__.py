"""Measures of pictures that need no trained weights."""
