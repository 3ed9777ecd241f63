"""CoinRun as an environment: what an end counts as, what is seen, what repeats itself."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coinruns import DOWN, LEFT, NOTHING, RIGHT, UP, hand_made, one_level
from hotoven import levels
from hotoven.envs import make
from hotoven.envs.coinrun import level, physics, symbolic
from hotoven.envs.coinrun.env import CoinRun
from hotoven.envs.coinrun.level import COIN, EMPTY, LAVA_TOP, MONSTER, SAW, Blueprint, Pile, Thing
from hotoven.evaluation.rollout import play
from hotoven.types import CATASTROPHE, FAILED, RUNNING, SOLVED, TIMEOUT, Decision, TimeStep

ENV = CoinRun(obs="symbolic")
step = jax.jit(CoinRun.step, static_argnums=0)


def start(plan: Blueprint, x: float = 2.5, y: float = 1.5787, env: CoinRun = ENV) -> physics.State:
    state, _ = env.reset(one_level(plan))
    return state._replace(x=jnp.float32(x), y=jnp.float32(y))


def after(env: CoinRun, state: physics.State, *actions: int) -> tuple[physics.State, TimeStep]:
    for action in actions:
        state, shown = step(env, state, np.int32(action))
    return state, shown


def ending(plan: Blueprint, env: CoinRun = ENV) -> tuple[int, str, float]:
    """How one step in the middle of a hand-made level ends: outcome, cause and reward."""
    _, shown = after(env, start(plan, env=env), NOTHING)
    return int(shown.outcome), env.causes[int(shown.cause)], float(shown.reward)


def with_cell(code: int) -> Blueprint:
    """A level with that cell where the agent stands."""
    plan = hand_made()
    if code == COIN:
        plan.grid[plan.grid == COIN] = EMPTY
        plan.grid[1, 2] = COIN
        return plan._replace(coin=(2, 1))
    plan.grid[1, 2] = code
    return plan


# Ends


def test_every_end_has_its_outcome_cause_and_reward():
    assert ending(hand_made()) == (RUNNING, "", 0)
    assert ending(with_cell(COIN)) == (SOLVED, "coin", 10)
    assert ending(with_cell(LAVA_TOP)) == (CATASTROPHE, "lava", 0)
    assert ending(hand_made([Thing(SAW, 2, 1, 0.0, 0)])) == (CATASTROPHE, "saw", 0)
    assert ending(hand_made([Thing(MONSTER, 2, 1, 0.15, 0)])) == (CATASTROPHE, "monster", 0)
    assert ending(hand_made(), replace(ENV, max_steps=1)) == (TIMEOUT, "timeout", 0)


def test_a_death_that_is_none_of_the_dangers_is_a_failure_and_no_catastrophe():
    only_lava = replace(ENV, dangers=("lava",))
    assert ending(hand_made([Thing(SAW, 2, 1, 0.0, 0)]), only_lava) == (FAILED, "saw", 0)
    assert ending(with_cell(LAVA_TOP), only_lava) == (CATASTROPHE, "lava", 0)


def test_a_death_in_the_last_step_is_a_death():
    saw = hand_made([Thing(SAW, 2, 1, 0.0, 0)])
    assert ending(saw, replace(ENV, max_steps=1)) == (CATASTROPHE, "saw", 0)


def test_the_fatal_frame_is_the_one_after_the_fatal_step():
    state = start(hand_made([Thing(SAW, 4, 1, 0.0, 0)]))
    died, shown = after(ENV, state, *[RIGHT] * 6)
    assert int(shown.outcome) == CATASTROPHE
    assert float(died.x) > 3.0  # where it died, not where a level starts
    np.testing.assert_array_equal(shown.obs, ENV.observe(died))


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "medium"}, "mode must be one of easy, hard, got 'medium'"),
        ({"obs": "sound"}, "obs must be one of pixels, symbolic, got 'sound'"),
        ({"dangers": ("fire",)}, "dangers must be one or more of lava, saw, monster, got"),
        ({"dangers": [["lava"]]}, "dangers must be one or more of lava, saw, monster, got"),
        ({"paint_velocity": "no"}, "paint_velocity must be True or False, got 'no'"),
        ({"dangers": ()}, r"dangers must be one or more of lava, saw, monster, got \(\)"),
        ({"dangers": "lava"}, "dangers must be one or more of lava, saw, monster, got 'lava'"),
        ({"max_steps": 1001}, "max_steps must be from 1 to 1000, got 1001"),
        ({"max_steps": 0}, "max_steps must be from 1 to 1000, got 0"),
        ({"max_steps": 5.0}, "max_steps must be a whole number, got 5.0"),
    ],
)
def test_an_impossible_setting_names_what_is_allowed(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        make("coinrun", **settings)


def test_negative_seeds_are_refused():
    with pytest.raises(ValueError, match="level ids must not be negative, got -3"):
        ENV.generate(np.array([4, -3]))


def test_the_order_of_dangers_makes_no_other_environment():
    assert CoinRun(dangers=["monster", "lava"]) == CoinRun(dangers=("lava", "monster"))
    assert hash(CoinRun(dangers=["saw"])) == hash(CoinRun(dangers=("saw",)))


# Levels


def test_levels_of_one_layout_are_one_level_whatever_they_look_like():
    made = levels.make_levels(replace(ENV, mode="easy"), np.arange(2000))
    layouts = np.concatenate(
        [leaf.reshape(len(made), -1) for leaf in jax.tree.leaves(made.levels.layout)], axis=1
    )
    num_layouts = len(np.unique(layouts, axis=0))
    assert len({digest.tobytes() for digest in made.digests}) == num_layouts
    assert 1200 < num_layouts < 1700
    assert len(np.unique(made.levels.ties, axis=0)) == 2000


def test_unseen_levels_have_layouts_that_no_training_level_has():
    split = levels.split(replace(ENV, mode="easy"), 300, 0, 300)
    assert split.train.num_duplicates > 0
    seen = {one.tobytes() for one in split.train.digests}
    assert not seen & {one.tobytes() for one in split.test.digests}


def test_levels_that_can_kill_can_be_asked_for_and_the_others_are_counted():
    env = replace(ENV, mode="easy")
    split = levels.split(env, 40, 0, 60, only=("can_kill",))
    for part in split:
        assert part.facts["can_kill"].all()
    test = split.test
    first = levels.ROLES.index("test") * levels.IDS_PER_ROLE
    drawn = int(test.ids[-1]) - first + 1
    _, facts = env.generate(np.arange(first, first + drawn))
    assert test.num_unfit == (~facts["can_kill"]).sum() > 0
    assert test.num_duplicates == drawn - 60 - test.num_unfit
    either = levels.split(env, 0, 0, 20, only=("has_lava", "has_monster")).test
    lava, monster = either.facts["has_lava"], either.facts["has_monster"]
    assert (lava | monster).all() and not lava.all() and not monster.all()


def test_only_facts_that_there_are_can_be_asked_for():
    with pytest.raises(ValueError, match="only must name facts among can_kill, has_lava, has_saw"):
        levels.split(ENV, 1, 0, 1, only=("has_fire",))
    with pytest.raises(ValueError, match="got difficulty"):
        levels.split(ENV, 1, 0, 1, only=("has_lava", "difficulty"))


def test_a_level_as_text_shows_where_everything_is():
    plan = hand_made([Thing(SAW, 3, 1, 0.0, 0), Thing(MONSTER, 4, 1, -0.15, 0)])
    rows = ENV.text(one_level(plan)).splitlines()
    assert rows[-2][:5] == "#A.o<"
    assert {len(row) for row in rows} == {plan.coin[0] + 2}
    assert rows[-1 - plan.coin[1]][plan.coin[0]] == "C"
    made, facts = level.generate(np.arange(200), "easy")
    for index in range(200):
        text = ENV.text(jax.tree.map(lambda leaf, index=index: leaf[index], made))
        assert text.count("o") == facts["num_saws"][index]
        assert text.count("<") + text.count(">") == facts["num_monsters"][index]
        assert ("L" in text) == facts["has_lava"][index]


# What is seen as symbols


def channel(obs: np.ndarray, name: str) -> np.ndarray:
    return np.asarray(obs)[:, :, symbolic.CHANNELS.index(name)]


def cells_of(obs: np.ndarray, name: str, state: physics.State) -> set[tuple[int, int]]:
    """World cells (x, y) that a channel marks."""
    rows, columns = np.nonzero(channel(obs, name))
    x, y = int(np.floor(state.x)), int(np.floor(state.y))
    return {(x - 6 + int(c), y + 6 - int(r)) for r, c in zip(rows, columns, strict=True)}


def test_symbols_show_each_thing_in_its_cell():
    things = [
        Thing(SAW, 4, 1, 0.0, 0),
        Thing(MONSTER, 1, 1, -0.15, 0),
        Thing(MONSTER, 2, 1, 0.15, 0),
    ]
    plan = hand_made(things, [Pile(False, 3, 1, 2)])
    state = start(plan, x=2.75, y=4.25)
    obs = np.asarray(jax.jit(symbolic.observe)(state))
    assert (obs.shape, obs.dtype) == ((13, 13, 13), np.uint8)
    assert cells_of(obs, "saw", state) == {(4, 1)}
    assert cells_of(obs, "monster_left", state) == {(1, 1)}
    assert cells_of(obs, "monster_right", state) == {(2, 1)}
    still = state._replace(monster_vx=state.monster_vx * 0)
    assert cells_of(symbolic.observe(still), "monster_right", state) == {(1, 1), (2, 1)}
    assert cells_of(obs, "crate", state) == {(3, 1), (3, 2)}
    assert (channel(obs, "x_in_cell") == 191).all()  # 0.75 of 255
    assert (channel(obs, "y_in_cell") == 63).all()
    seen = {(x, y) for x in range(-4, 9) for y in range(-2, 11)}
    outside = {(x, y) for x, y in seen if x < 0 or y < 0}
    assert cells_of(obs, "outside", state) == outside
    rock = {(x, y) for x, y in seen - outside if plan.grid[y, x] in (15, 16)}
    assert cells_of(obs, "wall", state) == rock


def test_symbols_agree_with_the_cells_of_generated_levels():
    env = replace(ENV, mode="hard")
    made, facts = env.generate(np.arange(300))
    chosen = np.flatnonzero(facts["has_lava"])[:6]
    observe = jax.jit(symbolic.observe)
    for index in chosen:
        one = jax.tree.map(lambda leaf, index=index: leaf[index], made)
        text = env.text(one).splitlines()[::-1]
        state, _ = env.reset(one)
        for x in np.linspace(1.5, len(text[0]) - 1.5, 7):
            state = state._replace(x=jnp.float32(x), y=jnp.float32(7.5))
            obs = observe(state)
            for mark, name in (("L", "lava"), ("o", "saw"), ("X", "crate"), ("C", "coin")):
                there = {
                    (column, row)
                    for row, line in enumerate(text)
                    for column, own in enumerate(line)
                    if own == mark and abs(column - int(x)) <= 6 and abs(row - 7) <= 6
                }
                assert cells_of(obs, name, state) == there


def test_symbols_tell_velocity_and_support():
    state = start(hand_made())
    obs = ENV.observe(state)
    assert (channel(obs, "vx") == 127).all() and (channel(obs, "vy") == 127).all()
    assert (channel(obs, "support") == 255).all()
    assert (channel(ENV.observe(start(hand_made(), y=5.0)), "support") == 0).all()
    fast = state._replace(vx=jnp.float32(0.5), vy=jnp.float32(-1.5))
    obs = ENV.observe(fast)
    assert (channel(obs, "vx") == 255).all() and (channel(obs, "vy") == 0).all()


def test_support_is_seen_exactly_where_the_next_jump_works():
    made, _ = ENV.generate(np.arange(16))
    generator = np.random.default_rng(1)
    states = jax.vmap(physics.reset)(made)
    forward, told = jax.jit(jax.vmap(physics.step)), jax.jit(jax.vmap(physics.supported))
    seen = set()
    for _ in range(60):
        jumped = forward(states, np.full(16, UP, np.int32))
        running = np.asarray(states.ends) == 0
        supported = np.asarray(told(states))[running]
        np.testing.assert_array_equal(supported, np.asarray(jumped.support)[running])
        seen |= set(supported.tolist())
        states = forward(states, generator.integers(15, size=16).astype(np.int32))
    assert seen == {True, False}


# Repeating rounds


def test_an_agent_that_stands_still_is_in_the_same_situation_again():
    for obs in ("symbolic", "pixels"):
        env = replace(ENV, obs=obs)
        states = [start(hand_made())]
        for _ in range(30):
            states.append(physics.step(states[-1], np.int32(NOTHING)))
        words = [
            b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(env.situation(state)))
            for state in states
        ]
        assert words[15] == words[25]  # a picture's clock comes round in ten steps
        assert (words[15] == words[16]) == (obs == "symbolic")


def test_a_monster_that_walks_makes_another_situation():
    plan = hand_made([Thing(MONSTER, 4, 1, 0.15, 0)])
    state = start(plan, x=1.5, y=8.0)  # far above it
    later = physics.step(state, np.int32(NOTHING))
    moved = state._replace(monster_x=later.monster_x)
    turned = state._replace(monster_vx=-state.monster_vx)
    facing = state._replace(facing_left=~state.facing_left)
    for other in (moved, turned, facing, state._replace(num_ties=state.num_ties + 1)):
        pairs = zip(*map(jax.tree.leaves, map(ENV.situation, (state, other))), strict=True)
        assert not all(np.array_equal(one, two) for one, two in pairs)


def test_the_velocity_is_painted_only_where_that_is_asked_for():
    state = start(hand_made())._replace(vx=jnp.float32(0.5))
    painted, plain = (CoinRun(paint_velocity=paint) for paint in (True, False))
    for draw in (CoinRun.observe, lambda env, state: env.render(state, 8)):
        one, other = (np.asarray(draw(env, state)) for env in (painted, plain))
        side = one.shape[0] // 5
        assert (one[:side, :side] == 255).all()
        assert not (other[:side, :side] == 255).all()
        np.testing.assert_array_equal(one[side + 1 :], other[side + 1 :])


def test_a_set_of_levels_knows_its_mode(tmp_path: Path):
    easy, hard = (CoinRun(mode=mode) for mode in ("easy", "hard"))
    levels.save(tmp_path / "set", levels.make_levels(easy, np.arange(3)))
    assert levels.load(tmp_path / "set", easy).family == "coinrun-easy"
    with pytest.raises(ValueError, match=r"holds coinrun-easy levels .*, this is coinrun-hard"):
        levels.load(tmp_path / "set", hard)


def test_skipping_moves_the_clock_and_nothing_else():
    state = start(hand_made())
    later = ENV.skip(state, jnp.int32(40))
    assert int(later.num_steps) == 40
    for name, before, now in zip(state._fields, state, later, strict=True):
        if name not in ("level", "num_steps"):
            np.testing.assert_array_equal(before, now)


class Always:
    """Does one thing for ever."""

    def __init__(self, action: jax.Array, deterministic: bool):
        self.action, self.deterministic = action, deterministic

    def init(self, key: jax.Array) -> tuple:
        return ()

    def act(self, memory: tuple, obs: jax.Array, key: jax.Array) -> tuple:
        none = jnp.zeros(15, bool)
        risk = jnp.float32(0)
        return memory, Decision(self.action, self.action, none * 1.0, risk, none, jnp.bool_(False))


def test_rounds_that_are_counted_end_as_those_that_are_played():
    made = jax.tree.map(jnp.asarray, ENV.generate(np.arange(24))[0])
    counting, playing = (
        jax.jit(lambda action, own=own: play(ENV, Always(action, own), made, jax.random.key(0)))
        for own in (True, False)
    )
    for action in (NOTHING, LEFT, DOWN, UP):
        counted = counting(jnp.int32(action))
        for one, other in zip(counted, playing(jnp.int32(action)), strict=True):
            np.testing.assert_array_equal(one, other)
        assert (np.asarray(counted.length) == 1000).any()
