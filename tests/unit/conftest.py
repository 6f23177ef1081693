"""Settings of all unit tests."""

from __future__ import annotations

from hypothesis import settings

# A busy machine is slow now and then: that is no property of the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
