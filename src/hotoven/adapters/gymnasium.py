"""Environments for Gymnasium 1.x: one episode at a time, or many batched on the device.

The levels' order, the autoreset modes and the infos live here; the rules stay in the environments.
Every info, of a reset too, has these keys (arrays [num_envs] beside a mask `_key` in the vector
form):

| key | type | meaning |
|---|---|---|
| outcome | str | how the episode stands: running, solved, catastrophe, timeout or failed |
| cause | str | what ended it, e.g. "lava"; "" while running |
| catastrophe | bool | True on the step that is the catastrophe, not on a step after it |
| cost | float | 1.0 on that step, else 0.0: the sum of costs is the number of catastrophes |
| level_id | int | the id of the level played |

TIMEOUT is `truncated`, every other end is `terminated`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from hotoven.envs import ENVS, make
from hotoven.levels import make_levels, split
from hotoven.trees import where
from hotoven.types import CATASTROPHE, OUTCOMES, RUNNING, TIMEOUT, Env, LevelSet, PyTree, TimeStep

DEFAULT_NUM_LEVELS: Final = 200
METADATA: Final[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 6}
FPS: Final = {"coinrun": 15}  # frames per second of a film, where it is not METADATA's
DEFAULT_SCALE: Final = 24  # pixels per cell of a rendered frame
# Keywords of both classes besides an environment's own settings.
ADAPTER_SETTINGS: Final = (
    "render_mode",
    "level_set",
    "level_ids",
    "num_levels",
    "level_seed",
    "only",
    "scale",
)

# How Gymnasium knows our environments.
REGISTERED: Final = {"lavagrid": "hotoven/LavaGrid-v0", "coinrun": "hotoven/CoinRun-v0"}


def register() -> None:
    """Registers every environment of `REGISTERED` with Gymnasium; a second call changes nothing."""
    for env_name, gymnasium_id in REGISTERED.items():
        if gymnasium_id in gymnasium.registry:
            continue
        gymnasium.register(
            gymnasium_id,
            entry_point="hotoven.adapters.gymnasium:GymnasiumEnv",
            vector_entry_point="hotoven.adapters.gymnasium:GymnasiumVectorEnv",
            kwargs={"env_name": env_name},
        )


class GymnasiumEnv(gymnasium.Env[np.ndarray, np.int64]):
    """One environment, each reset on a level drawn uniformly from a level set.

    `reset(options={"level": index})` or `{"level_id": id}` chooses the level instead. A step after
    the end changes nothing and has reward 0 and cost 0.

    Args:
      env_name: a key of `hotoven.envs.ENVS`.
      render_mode: None or "rgb_array".
      level_set: the levels to play. `hotoven.levels.split` makes disjoint ones for training and
        testing.
      level_ids: in place of `level_set`, the ids of the levels, e.g. range(10).
      num_levels: in place of both, the first levels of the training set of `level_seed`; 200 when
        nothing is given.
      level_seed: which training set.
      only: names of yes-or-no facts: with `num_levels`, levels for which one of them holds, e.g.
        CoinRun's ("can_kill",).
      scale: pixels per cell of a rendered frame.
      settings: the environment's own, e.g. height=7.

    Raises:
      ValueError: a setting, a level set or an option that is not allowed; the message says what is.
    """

    metadata = METADATA

    def __init__(
        self,
        env_name: str = "lavagrid",
        *,
        render_mode: str | None = None,
        level_set: LevelSet | None = None,
        level_ids: Sequence[int] | np.ndarray | None = None,
        num_levels: int | None = None,
        level_seed: int = 0,
        only: Sequence[str] = (),
        scale: int = DEFAULT_SCALE,
        **settings: Any,
    ) -> None:
        _check_render_mode(render_mode)
        self.env = _make_env(env_name, settings)
        self.level_set = _choose_levels(
            self.env, level_set, level_ids, num_levels, level_seed, only
        )
        self.metadata = _metadata(self.env)
        self.observation_space = _observation_space(self.env, self.level_set)
        self.action_space = spaces.Discrete(self.env.num_actions)
        self.render_mode = render_mode
        self._scale = scale
        self._levels = jax.tree.map(jnp.asarray, self.level_set.levels)
        self._index = 0
        self._ended = False
        self._state: PyTree = None

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The first observation of a level; the same seed starts the same order of levels."""
        super().reset(seed=seed)
        chosen = _chosen_levels(self.level_set, options, 1)
        if chosen is None:
            chosen = self.np_random.integers(len(self.level_set), size=1)
        self._index = int(chosen[0])
        self._state, shown = _reset_one(self.env, self._levels, np.int32(self._index))
        self._ended = False
        shown = jax.device_get(shown)
        return np.array(shown.obs), self._info(shown)

    def step(self, action: np.int64 | int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Gymnasium's five; the observation is the one after the step, the fatal frame included."""
        if self._state is None:
            raise ResetNeeded("call reset before step")
        if not self.action_space.contains(action):
            raise ValueError(f"action must be from 0 to {self.env.num_actions - 1}, got {action!r}")
        self._state, shown = _step_one(self.env, self._state, np.int32(action))
        shown = jax.device_get(shown)
        truncated = int(shown.outcome) == TIMEOUT
        terminated = int(shown.outcome) != RUNNING and not truncated
        info = self._info(shown)
        self._ended = terminated or truncated
        return np.array(shown.obs), float(shown.reward), terminated, truncated, info

    def render(self) -> np.ndarray | None:
        """uint8[height, width, 3], or None without a render mode."""
        if self.render_mode is None:
            return None
        if self._state is None:
            raise ResetNeeded("call reset before render")
        return np.array(_render_one(self.env, self._state, self._scale))

    def _info(self, shown: TimeStep) -> dict[str, Any]:
        catastrophe = int(shown.outcome) == CATASTROPHE and not self._ended
        return {
            "outcome": OUTCOMES[int(shown.outcome)],
            "cause": self.env.causes[int(shown.cause)],
            "catastrophe": catastrophe,
            "cost": float(catastrophe),
            "level_id": int(self.level_set.ids[self._index]),
        }


class GymnasiumVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Many environments batched on the device: reset and step are each compiled once.

    `autoreset_mode` decides what follows an episode's end:

    | mode | what happens |
    |---|---|
    | NEXT_STEP | the next step ignores the action and returns the first observation of a level |
    | SAME_STEP | the same step returns it; the last one is in `final_obs`, `final_info` |
    | DISABLED | nothing: call reset with options={"reset_mask": bool[num_envs]} |

    `reset(options=...)` also takes "level" or "level_id", one for all or one per environment. With
    "reset_mask" the environments outside the mask keep their state and have no info. All levels are
    drawn from one generator, so the order depends on the seed and on `num_envs`.

    Args:
      num_envs: how many.
      autoreset_mode: an `AutoresetMode` or its value, e.g. "SameStep".

    The others are those of `GymnasiumEnv`. Gymnasium hands them over as keywords of `make_vec`, and
    wants `vector_kwargs` empty.
    """

    def __init__(
        self,
        num_envs: int = 1,
        env_name: str = "lavagrid",
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        level_set: LevelSet | None = None,
        level_ids: Sequence[int] | np.ndarray | None = None,
        num_levels: int | None = None,
        level_seed: int = 0,
        only: Sequence[str] = (),
        scale: int = DEFAULT_SCALE,
        **settings: Any,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        _check_render_mode(render_mode)
        self.env = _make_env(env_name, settings)
        self.level_set = _choose_levels(
            self.env, level_set, level_ids, num_levels, level_seed, only
        )
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        self.metadata = {**_metadata(self.env), "autoreset_mode": self.autoreset_mode}
        self.num_envs = num_envs
        self.single_observation_space = _observation_space(self.env, self.level_set)
        self.single_action_space = spaces.Discrete(self.env.num_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.render_mode = render_mode
        self._scale = scale
        self._levels = jax.tree.map(jnp.asarray, self.level_set.levels)
        self._causes = np.array(self.env.causes, dtype=object)
        self._outcomes = np.array(OUTCOMES, dtype=object)
        self._index = np.zeros(num_envs, np.int32)
        self._ended = np.zeros(num_envs, bool)
        self._state: PyTree = None
        self._shown: Any = None  # the TimeStep of each environment, on the device

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The first observations [num_envs, *obs_shape] and infos."""
        super().reset(seed=seed)
        mask = self._reset_mask(options)
        chosen = _chosen_levels(self.level_set, options, self.num_envs, ("reset_mask",))
        self._start(mask, chosen)
        shown = jax.device_get(self._shown)
        return np.array(shown.obs), self._infos(shown, mask)

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Gymnasium's five, arrays [num_envs, ...]; see the class for what follows an end."""
        if self._state is None:
            raise ResetNeeded("call reset before step")
        actions = self._check_actions(actions)
        were_ended = self._ended
        if self.autoreset_mode == AutoresetMode.DISABLED and were_ended.any():
            raise ResetNeeded(
                f"environments {np.flatnonzero(were_ended).tolist()} have ended: reset them with "
                'options={"reset_mask": ...} before the next step'
            )
        self._state, self._shown = _step_many(self.env, self._state, actions)
        if self.autoreset_mode == AutoresetMode.NEXT_STEP and were_ended.any():
            self._start(were_ended, None)
        shown = jax.device_get(self._shown)
        self._ended = shown.outcome != RUNNING
        truncated = shown.outcome == TIMEOUT
        terminated = self._ended & ~truncated

        infos: dict[str, Any] = {}
        first = last = shown
        if self.autoreset_mode == AutoresetMode.SAME_STEP and self._ended.any():
            ended = self._ended
            infos |= self._final(last, ended)
            self._start(ended, None)
            first = jax.device_get(self._shown)
        infos |= self._infos(first, np.ones(self.num_envs, bool))
        return np.array(first.obs), last.reward.astype(np.float64), terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """One frame uint8[height, width, 3] per environment, or None without a render mode."""
        if self.render_mode is None:
            return None
        if self._state is None:
            raise ResetNeeded("call reset before render")
        return tuple(np.array(_render_many(self.env, self._state, self._scale)))

    def _start(self, mask: np.ndarray, chosen: np.ndarray | None) -> None:
        """Begins an episode in every environment of `mask`, on the chosen levels or drawn ones."""
        index = self._index.copy()
        if chosen is None:
            index[mask] = self.np_random.integers(len(self.level_set), size=int(mask.sum()))
        else:
            index[mask] = chosen[mask]
        fresh = _reset_many(self.env, self._levels, index)
        if not mask.all():
            fresh = _where(mask, fresh, (self._state, self._shown))
        self._state, self._shown = fresh
        self._index = index
        self._ended = self._ended & ~mask

    def _infos(self, shown: TimeStep, mask: np.ndarray) -> dict[str, Any]:
        """Infos of the environments in `mask`: Gymnasium's arrays, each beside its `_key` mask."""
        catastrophe = np.asarray(shown.outcome) == CATASTROPHE
        infos: dict[str, Any] = {}
        for key, values in (
            ("outcome", self._outcomes[shown.outcome]),
            ("cause", self._causes[shown.cause]),
            ("catastrophe", catastrophe),
            ("cost", catastrophe.astype(np.float64)),
            ("level_id", self.level_set.ids[self._index]),
        ):
            infos[key] = np.zeros(self.num_envs, values.dtype)
            if values.dtype == object:
                infos[key].fill(None)
            infos[key][mask] = values[mask]
            infos[f"_{key}"] = mask.copy()
        return infos

    def _final(self, shown: TimeStep, ended: np.ndarray) -> dict[str, Any]:
        """What SAME_STEP says of the step that ended an episode, before the reset hides it."""
        final_obs = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(ended):
            final_obs[i] = np.array(shown.obs[i])
        return {
            "final_obs": final_obs,
            "_final_obs": ended.copy(),
            "final_info": self._infos(shown, ended),
            "_final_info": ended.copy(),
        }

    def _reset_mask(self, options: Mapping[str, Any] | None) -> np.ndarray:
        mask = (options or {}).get("reset_mask")
        if mask is None:
            return np.ones(self.num_envs, bool)
        mask = np.asarray(mask)
        if mask.dtype != bool or mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"reset_mask must be bool[{self.num_envs}] with at least one True, "
                f"got {mask.dtype}{list(mask.shape)}"
            )
        if self._state is None and not mask.all():
            raise ResetNeeded("reset all environments once before resetting some")
        return mask

    def _check_actions(self, actions: np.ndarray) -> np.ndarray:
        actions = np.asarray(actions)
        last = self.env.num_actions - 1
        if actions.shape != (self.num_envs,) or not np.issubdtype(actions.dtype, np.integer):
            raise ValueError(
                f"actions must be integers [{self.num_envs}], "
                f"got {actions.dtype}{list(actions.shape)}"
            )
        if actions.min() < 0 or actions.max() > last:
            raise ValueError(f"actions must be from 0 to {last}, got {actions.tolist()}")
        return actions.astype(np.int32)


# Environments are frozen dataclasses of plain values, so equal ones share what is compiled.


@partial(jax.jit, static_argnums=0)
def _reset_one(env: Env, levels: PyTree, index: jax.Array) -> tuple[PyTree, TimeStep]:
    return env.reset(jax.tree.map(lambda leaf: leaf[index], levels))


@partial(jax.jit, static_argnums=0)
def _step_one(env: Env, state: PyTree, action: jax.Array) -> tuple[PyTree, TimeStep]:
    return env.step(state, action)


@partial(jax.jit, static_argnums=(0, 2))
def _render_one(env: Env, state: PyTree, scale: int) -> jax.Array:
    return env.render(state, scale)


@partial(jax.jit, static_argnums=0)
def _reset_many(env: Env, levels: PyTree, index: jax.Array) -> tuple[PyTree, TimeStep]:
    return jax.vmap(env.reset)(jax.tree.map(lambda leaf: leaf[index], levels))


@partial(jax.jit, static_argnums=0)
def _step_many(env: Env, state: PyTree, actions: jax.Array) -> tuple[PyTree, TimeStep]:
    return jax.vmap(env.step)(state, actions)


@partial(jax.jit, static_argnums=(0, 2))
def _render_many(env: Env, state: PyTree, scale: int) -> jax.Array:
    return jax.vmap(lambda one: env.render(one, scale))(state)


_where = jax.jit(where)


def _make_env(env_name: str, settings: Mapping[str, Any]) -> Env:
    if env_name not in REGISTERED:
        raise ValueError(f"env_name must be one of {', '.join(REGISTERED)}, got {env_name!r}")
    own = [field.name for field in dataclasses.fields(ENVS[env_name])]
    unknown = [name for name in settings if name not in own]
    if unknown:
        raise ValueError(
            f"settings of {env_name} must be among {', '.join([*own, *ADAPTER_SETTINGS])}, "
            f"got {', '.join(unknown)}"
        )
    return make(env_name, **settings)


def _metadata(env: Env) -> dict[str, Any]:
    return METADATA | {"render_fps": FPS.get(env.name, METADATA["render_fps"])}


def _check_render_mode(render_mode: str | None) -> None:
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")


def _autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError:
        allowed = ", ".join(mode.value for mode in AutoresetMode)
        raise ValueError(f"autoreset_mode must be one of {allowed}, got {mode!r}") from None


def _choose_levels(
    env: Env,
    level_set: LevelSet | None,
    level_ids: Sequence[int] | np.ndarray | None,
    num_levels: int | None,
    level_seed: int,
    only: Sequence[str],
) -> LevelSet:
    given = {"level_set": level_set, "level_ids": level_ids, "num_levels": num_levels}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise ValueError(f"only one of {', '.join(given)} is allowed, got {' and '.join(named)}")
    if only and (level_set is not None or level_ids is not None):
        raise ValueError("only goes with num_levels; level_set and level_ids are chosen already")
    if level_set is None:
        if level_ids is not None:
            level_set = make_levels(env, np.asarray(level_ids))
        else:
            count = DEFAULT_NUM_LEVELS if num_levels is None else num_levels
            level_set = split(env, count, 0, 0, level_seed, only).train
    if len(level_set) < 1:
        raise ValueError("at least one level is needed, got none")
    pattern, _ = env.generate(np.zeros(0, np.int64))
    made, needed = _shapes(level_set.levels), _shapes(pattern)
    ours = f"{env.family} levels of version {env.version}"
    came = f"{level_set.family} levels of version {level_set.version}"
    if came != ours or made != needed:
        raise ValueError(
            f"level_set must hold {ours} with arrays {needed}, got {came} with arrays {made}"
        )
    return level_set


def _shapes(levels: PyTree) -> str:
    return " ".join(f"{leaf.dtype}{list(leaf.shape[1:])}" for leaf in jax.tree.leaves(levels))


def _observation_space(env: Env, level_set: LevelSet) -> spaces.Box:
    level = jax.tree.map(lambda leaf: leaf[0], level_set.levels)
    _, shown = jax.eval_shape(env.reset, level)
    return spaces.Box(0, env.obs_high, env.obs_shape, np.dtype(shown.obs.dtype).type)


def _chosen_levels(
    level_set: LevelSet,
    options: Mapping[str, Any] | None,
    num_envs: int,
    others: tuple[str, ...] = (),
) -> np.ndarray | None:
    """int[num_envs]: indices into `level_set` that the options of a reset name; None if none."""
    options = options or {}
    allowed = ("level", "level_id", *others)
    unknown = [name for name in options if name not in allowed]
    if unknown:
        raise ValueError(
            f"options of reset must be among {', '.join(allowed)}, got {', '.join(unknown)}"
        )
    if "level" in options and "level_id" in options:
        raise ValueError("options of reset must name level or level_id, got both")
    if "level" in options:
        index = np.asarray(options["level"])
        integers = np.issubdtype(index.dtype, np.integer)
        if not integers or not ((index >= 0) & (index < len(level_set))).all():
            raise ValueError(
                f"level must be an index from 0 to {len(level_set) - 1}, got {options['level']!r}"
            )
    elif "level_id" in options:
        matches = np.asarray(options["level_id"])[..., None] == level_set.ids
        if not matches.any(axis=-1).all():
            raise ValueError(
                f"level_id must be one of the {len(level_set)} ids of the level set "
                f"({level_set.ids.min()} to {level_set.ids.max()}), got {options['level_id']!r}"
            )
        index = matches.argmax(axis=-1)
    else:
        return None
    if index.shape not in ((), (num_envs,)):
        raise ValueError(
            f"one level for all or one for each of {num_envs} must be given, got {index.size}"
        )
    return np.broadcast_to(index, num_envs)
