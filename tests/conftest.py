"""Settings that hold for every test."""

from hypothesis import settings

# No deadline: a first call compiles. Derandomised: a failure on one machine is one on another.
settings.register_profile("hotoven", deadline=None, derandomize=True)
settings.load_profile("hotoven")
