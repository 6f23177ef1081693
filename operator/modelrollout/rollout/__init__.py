"""Decisions: pure functions of what is declared, recorded, observed and measured."""
