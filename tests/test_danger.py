"""The classifier learns which actions are catastrophic, on the training levels and no others."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hotoven.envs.lavagrid import CHANNELS, LavaGrid
from hotoven.envs.lavagrid_levels import Level, from_ascii
from hotoven.evaluation.rollout import dangerous_actions
from hotoven.learners.danger import Danger, DangerConfig, make_danger
from hotoven.learners.experience import Transition

LAVA = CHANNELS.index("lava")
ENV = LavaGrid(
    height=3, width=3, wall_density=0.0, lava_density=0.0, min_distance=1, visibility="full",
    max_steps=6,
)  # fmt: skip
CONFIG = DangerConfig(
    filters=(8,), hidden=(32,), learning_rate=5e-3, num_updates=300, num_envs=16, num_steps=50
)
MAPS = (".L.\n.S.\n..G", "...\n.SL\n..G", "...\n.S.\nGL.", "...\nLS.\n..G")  # up right down left


def levels() -> Any:
    drawn = [from_ascii(text) for text in MAPS]
    return Level(*(jnp.stack([jnp.asarray(leaf) for leaf in leaves]) for leaves in zip(*drawn)))  # noqa: B905


@cache
def experience(num_levels: int) -> tuple[Danger, Transition]:
    danger = make_danger(CONFIG, ENV)
    stay_up = lambda obs: jnp.int32(0)  # noqa: E731
    collect = jax.jit(lambda n, key: danger.collect(stay_up, levels(), n, key))
    return danger, collect(jnp.int32(num_levels), jax.random.key(0))


def lava_cells(rows: Transition) -> set[tuple[int, ...]]:
    """Where lava lies in the observations left and reached; one entry per kind of level."""
    seen = np.concatenate([np.asarray(rows.obs), np.asarray(rows.next_obs)])[..., LAVA]
    return {tuple(int(cell) for cell in np.argwhere(one)[0]) for one in np.unique(seen, axis=0)}


def test_it_learns_which_actions_are_catastrophic():
    danger, rows = experience(4)
    params = jax.jit(danger.fit)(rows, jax.random.key(1))
    state, shown = jax.vmap(ENV.reset)(levels())
    truth = jax.vmap(lambda state: dangerous_actions(ENV, state))(state)
    assert truth.tolist() == np.eye(4, dtype=bool).tolist()
    logits = jax.vmap(danger.net.apply, (None, 0))(params, shown.obs)
    assert (logits > 0.0).tolist() == truth.tolist()


def test_rows_are_labelled_by_what_happened():
    _, rows = experience(4)
    assert len(rows.action) == CONFIG.num_envs * CONFIG.num_steps
    agent = np.asarray(rows.next_obs)[..., CHANNELS.index("agent")] == 1
    on_lava = (agent & (np.asarray(rows.next_obs)[..., LAVA] == 1)).any(axis=(1, 2))
    assert on_lava.any()
    assert not on_lava.all()
    assert np.array_equal(np.asarray(rows.catastrophe), on_lava)
    assert np.asarray(rows.terminated)[on_lava].all()


def test_experience_comes_from_the_first_levels_only():
    assert lava_cells(experience(1)[1]) == {(0, 1)}
    assert lava_cells(experience(2)[1]) == {(0, 1), (1, 2)}
    assert lava_cells(experience(4)[1]) == {(0, 1), (1, 2), (2, 1), (1, 0)}


def test_rare_catastrophes_keep_their_probability():
    # Two kinds of state, lost in 1% and in 20% of cases whatever the action. Balancing alone would
    # say about 9% and 70%.
    env = LavaGrid(height=1, width=3, wall_density=0.0, lava_density=0.0, min_distance=1)
    config = DangerConfig(
        filters=(4,), hidden=(8,), learning_rate=3e-3, num_updates=1500, batch_size=256
    )
    danger = make_danger(config, env)
    num_rows = 4000
    kind = np.arange(num_rows) % 2
    nth = np.arange(num_rows) // 2  # of its kind
    happened = nth % np.where(kind == 1, 5, 100) == 0
    assert (happened[kind == 0].mean(), happened[kind == 1].mean()) == (0.01, 0.2)
    obs = np.zeros((num_rows, *env.obs_shape), np.uint8)
    obs[:, 0, 0, 0] = kind
    rows = Transition(
        obs=jnp.asarray(obs),
        action=jnp.asarray(nth // 100 % 4, jnp.int32),
        reward=jnp.zeros(num_rows),
        next_obs=jnp.asarray(obs),
        terminated=jnp.asarray(happened),
        catastrophe=jnp.asarray(happened),
    )
    params = jax.jit(danger.fit)(rows, jax.random.key(0))
    probability = jax.nn.sigmoid(jax.vmap(danger.net.apply, (None, 0))(params, rows.obs[:2]))
    assert probability[0] == pytest.approx(np.full(4, 0.01), abs=0.01)
    assert probability[1] == pytest.approx(np.full(4, 0.20), abs=0.06)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be from 1 to 2147483647, got 0"),
        ({"num_updates": 0}, "num_updates must be from 1 to 2147483647, got 0"),
        ({"hidden": (0,)}, "hidden must be from 1 to 2147483647 each, got (0,)"),
        ({"calibration_share": 1.0}, "calibration_share must be between 0 and 1, got 1.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0 and finite, got nan"),
    ],
)
def test_an_impossible_setting_names_what_is_allowed(settings, message):
    with pytest.raises(ValueError) as error:
        DangerConfig(**settings)
    assert str(error.value) == message
