"""Tests of ModelRollout, and the cluster they run on."""
