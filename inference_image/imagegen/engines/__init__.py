"""Engines: what turns a batch of prompts and seeds into pictures."""
