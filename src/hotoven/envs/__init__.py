"""The environments by name. A new one is one file and one line here."""

from dataclasses import fields
from typing import Any

from hotoven.envs.coinrun.env import CoinRun
from hotoven.envs.lavagrid import LavaGrid
from hotoven.types import Env

ENVS: dict[str, type] = {"lavagrid": LavaGrid, "coinrun": CoinRun}


def make(name: str, **settings: Any) -> Env:
    """The environment of that name with those settings.

    Raises:
      ValueError: no environment has that name, it has no such setting, or one is impossible.
    """
    if name not in ENVS:
        raise ValueError(f"env must be one of {', '.join(ENVS)}, got {name!r}")
    own = [field.name for field in fields(ENVS[name])]
    unknown = [setting for setting in settings if setting not in own]
    if unknown:
        raise ValueError(
            f"settings of {name} must be among {', '.join(own)}, got {', '.join(unknown)}"
        )
    return ENVS[name](**settings)
