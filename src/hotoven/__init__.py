"""hotoven: how dangerous is a trained agent in levels it has never seen?"""
from hotoven.envs import make
__all__ = ["make"]
