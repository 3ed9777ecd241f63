"""The environments by name. A new one is one file and one line here."""

from typing import Any

from hotoven.envs.coinrun.env import CoinRun
from hotoven.envs.lavagrid import LavaGrid
from hotoven.types import Env

ENVS: dict[str, type] = {"lavagrid": LavaGrid, "coinrun": CoinRun}


def make(name: str, **settings: Any) -> Env:
    """The environment of that name with those settings.

    Raises:
      ValueError: no environment has that name, or a setting is impossible.
      TypeError: the environment has no setting of that name.
    """
    if name not in ENVS:
        raise ValueError(f"env must be one of {', '.join(ENVS)}, got {name!r}")
    return ENVS[name](**settings)
