"""Property tests here run the same examples every time and are not timed. To look for new ones: `pytest --hypothesis-profile default`."""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
