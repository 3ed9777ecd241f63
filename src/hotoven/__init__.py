"""hotoven: how dangerous is a trained agent in levels it has never seen?"""

from hotoven.adapters.gymnasium import register
from hotoven.envs import make

__all__ = ["make"]

register()  # gymnasium.make("hotoven/LavaGrid-v0") works after `import hotoven`
