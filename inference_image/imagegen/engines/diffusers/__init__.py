"""The engine that runs a diffusers pipeline, on a CUDA device when there is one."""

from __future__ import annotations

import os

# Read by the libraries when they are imported: nothing is fetched, no shipped code is run.
os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
