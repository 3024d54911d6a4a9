"""Fixtures and settings for every folder of tests."""

import os

# Before grpc is imported anywhere: its fork handlers crash children that tests start.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from hypothesis import settings

pytest_plugins = ["tests.fakes.database"]

# A slow machine is no finding.
settings.register_profile("mesh", deadline=None)
settings.load_profile("mesh")
