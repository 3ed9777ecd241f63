"""CoinRun's physics: every bit as recorded from the real game, alone, compiled and in batches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coinruns import DOWN, LEFT, NOTHING, RIGHT, UP, hand_made, one_level, walk
from hotoven.envs.coinrun import physics, verify
from hotoven.envs.coinrun.level import (
    AWAY,
    MODES,
    MONSTER,
    Level,
    Pile,
    Thing,
    pack,
)
from hotoven.envs.coinrun.level import generate as generate_levels
from hotoven.envs.coinrun.physics import (
    CAUSES,
    END_COIN,
    END_MONSTER,
    END_SAW,
    END_TIME,
    MAX_STEPS,
    NUM_ACTIONS,
    TALL,
    State,
    cause,
    reset,
    step,
)
from hotoven.envs.coinrun.verify import Recording, compare_runs, read

pytestmark = pytest.mark.optimised

DATA = Path(__file__).parent / "data" / "coinrun"

both_modes = pytest.mark.parametrize("mode", MODES)
all_steps = jax.jit(jax.vmap(step))


def recorded(name: str, mode: str) -> Recording:
    return read(DATA / f"{name}_{mode}.npz")


def some_runs(recording: Recording, stride: int) -> Recording:
    """Every `stride`-th run of a recording."""
    chosen = np.arange(0, len(recording["seed"]), stride)
    extra = 1 if "warm" in recording else 0
    lengths = np.diff(recording["offset"])
    sizes = (lengths + extra) * recording["mon_count"]

    def rows(offsets: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        parts = [np.arange(offsets[run], offsets[run] + sizes[run]) for run in chosen]
        return np.concatenate(parts).astype(int)

    by_step = rows(recording["offset"], lengths)
    by_monster = rows(recording["mon_offset"], sizes)
    num_steps, num_runs = recording["offset"][-1], len(recording["seed"])
    taken = {}
    for name, values in recording.items():
        if name in ("offset", "mon_offset"):
            own = (lengths if name == "offset" else sizes)[chosen]
            taken[name] = np.concatenate([[0], np.cumsum(own)]).astype(values.dtype)
        elif name in ("mon_x", "mon_vx"):
            taken[name] = values[by_monster]
        elif len(values) == num_steps:
            taken[name] = values[by_step]
        else:
            taken[name] = values[chosen] if len(values) == num_runs else values
    return taken


def one_by_one(play: Callable[..., Any]) -> Callable[..., Any]:
    """`play` for a batch, without a batch axis inside."""

    def play_all(states: State, actions: np.ndarray) -> dict[str, np.ndarray]:
        runs = [
            jax.device_get(play(jax.tree.map(lambda leaf, run=run: leaf[run], states), path))
            for run, path in enumerate(actions)
        ]
        return {name: np.stack([run[name] for run in runs]) for name in runs[0]}

    return play_all


def assert_identical(result: verify.Comparison, total: int, num_steps: int) -> None:
    assert result.first_difference == ""
    assert (result.identical, result.total, result.num_steps) == (total, total, num_steps)


# Against the real game


@both_modes
def test_every_recorded_trajectory_is_repeated_to_the_bit_in_a_batch(mode: str):
    assert_identical(compare_runs(recorded("traj", mode), mode), 116, 46_040)


@both_modes
def test_every_recorded_short_run_is_repeated_to_the_bit_in_a_batch(mode: str):
    num_steps = {"easy": 28_105, "hard": 28_371}[mode]
    assert_identical(compare_runs(recorded("short", mode), mode), 4800, num_steps)


@both_modes
def test_a_level_alone_is_played_to_the_bit_as_well(mode: str):
    alone = one_by_one(jax.jit(verify.play))
    trajectories = some_runs(recorded("traj", mode), 8)
    num_steps = int(trajectories["offset"][-1])
    assert_identical(compare_runs(trajectories, mode, alone), 15, num_steps)
    short = some_runs(recorded("short", mode), 24)
    assert_identical(compare_runs(short, mode, alone), 200, int(short["offset"][-1]))


def test_steps_that_are_compiled_together_stay_apart_to_the_bit():
    # One product at the end of a step meets the first sum of the next one.
    @jax.jit
    @jax.vmap
    def twice(state: State, actions: jax.Array) -> State:
        return step(step(state, actions[0]), actions[1])

    levels, _ = generate_levels(np.arange(256), "hard")
    actions = np.random.default_rng(0).integers(NUM_ACTIONS, size=(256, 60)).astype(np.int32)
    alone = together = jax.vmap(reset)(levels)
    for t in range(0, actions.shape[1], 2):
        alone = all_steps(all_steps(alone, actions[:, t]), actions[:, t + 1])
        together = twice(together, actions[:, t : t + 2])
    for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@both_modes
@pytest.mark.parametrize("name", ["traj", "short"])
def test_every_end_has_the_known_reasons(name: str, mode: str):
    recording = recorded(name, mode)
    ends = read(DATA / f"ends_{name}_{mode}.npz")["ends"]
    lengths = np.diff(recording["offset"])
    run = np.repeat(np.arange(len(lengths)), lengths)
    at = np.arange(len(run)) - recording["offset"][run]
    actions = np.full((len(lengths), lengths.max()), NOTHING, np.int32)
    actions[run, at] = recording["action"]
    shown = verify.play_all(verify.starts(recording, mode), actions)
    np.testing.assert_array_equal(np.asarray(shown["ends"])[run, at], ends)


def test_each_value_is_rounded_before_the_next_operation():
    # What XLA would contract, against numpy, which does not.
    generator = np.random.default_rng(0)
    a, b, c = generator.uniform(-1, 1, size=(3, 65_536)).astype(np.float32)
    contract_me = jax.jit(jax.vmap(lambda a, b, c: physics._rounded(a * b) + c))
    np.testing.assert_array_equal(contract_me(a, b, c), a * b + c)
    whole = np.arange(1, 30, dtype=np.float32)
    merge_me = jax.jit(jax.vmap(lambda a: physics._rounded(a + 1) + TALL))
    np.testing.assert_array_equal(merge_me(whole), (whole + np.float32(1)) + TALL)


# On levels made by hand


def test_an_agent_on_a_crate_stays_on_it_at_every_height():
    # The height of a crate's top, 1 + ... + 0.5787, is rounded as the game rounds it.
    heights = np.arange(1, 27)
    plans = []
    for height in heights:
        plan = hand_made([], [Pile(False, 3, int(height), 1)])
        plan.grid[: height - 1, 1:5], plan.grid[height - 1, 1:5] = 15, 16
        plans.append(plan)
    states = jax.vmap(reset)(pack(plans))
    tops = (heights + 1).astype(np.float32) + TALL
    states = states._replace(x=jnp.full(len(plans), 3.5, jnp.float32), y=jnp.asarray(tops))
    flush = (heights + 0.5).astype(np.float32) + (np.float32(0.5) + TALL)
    for _ in range(5):
        states = all_steps(states, np.full(len(plans), NOTHING, np.int32))
        np.testing.assert_array_equal(states.y, flush)
        assert states.on_crate.all()


def test_pressing_down_drops_through_a_crate():
    state = reset(one_level(hand_made([], [Pile(False, 3, 1, 2)])))
    state = state._replace(x=jnp.float32(3.5), y=jnp.float32(np.float32(3) + TALL))
    assert float(walk(state, NOTHING, NOTHING).y) > 3.5
    assert float(walk(state, *[DOWN] * 8).y) < 2


def test_an_agent_walks_through_a_crate_from_the_side():
    state = reset(one_level(hand_made([], [Pile(False, 3, 1, 3)])))
    assert float(walk(state, *[RIGHT] * 12).x) > 4


def test_a_jump_needs_support():
    state = walk(reset(one_level(hand_made())), NOTHING, NOTHING)
    risen = walk(state, UP)
    assert float(risen.vy) == 1.5
    assert float(walk(risen, UP).vy) < 1.5


def test_the_upper_rim_of_the_world_is_rock():
    state = reset(one_level(hand_made()))._replace(y=jnp.float32(62), vy=jnp.float32(1.5))
    assert float(walk(state, NOTHING).y) == np.float32(63) - TALL


def test_a_monster_turns_at_the_edge_of_its_row_and_pays_for_rock_only():
    plan = hand_made([Thing(MONSTER, 3, 1, 0.15, 0)])
    plan.grid[1, 4] = 19  # an invisible cell on the right; rock on the left, column 0
    state = reset(one_level(plan))._replace(x=jnp.float32(1.5), y=jnp.float32(5))
    speeds = [float(state.monster_vx[0])]
    for _ in range(60):
        # Only the monster is of interest: the agent is held up out of its reach.
        state = step(state, np.int32(NOTHING))
        state = state._replace(y=jnp.float32(5), vy=jnp.float32(0))
        speeds.append(float(state.monster_vx[0]))
    turns = [speed for speed, last in zip(speeds[1:], speeds, strict=False) if speed != last]
    np.testing.assert_allclose(turns, [-0.15, 0.1125, -0.1125, 0.084375], rtol=1e-6)


def test_a_tie_of_speeds_is_broken_by_the_levels_own_bit():
    level = one_level(hand_made())
    state = reset(level)._replace(num_steps=jnp.int32(37))
    speed = jnp.float32(0.25)
    still = jnp.int32(0)
    no = jnp.bool_(False)
    for bit in (0, 1):
        word = np.uint32(bit << 5)
        tied = state._replace(level=level._replace(ties=level.ties * 0 + word))
        for vx, vy, push, lifts, expected in (
            (speed, -speed, still, no, (bit == 0, True)),
            (speed, -speed, still + 1, no, (True, False)),
            (speed, -speed, still, ~no, (False, False)),
            (speed, 2 * speed, still, no, (False, False)),
            (0 * speed, 0 * speed, still, no, (bit == 0, False)),  # nothing to put in order
        ):
            found = physics._side_first(tied, vx, vy, push, lifts)
            assert tuple(map(bool, found)) == expected


def test_steps_that_a_bit_decided_are_counted():
    # At rest in the air and falling; then sideways as fast as down.
    state = reset(one_level(hand_made()))._replace(x=jnp.float32(3), y=jnp.float32(8))
    assert int(walk(state, NOTHING).num_ties) == 0
    fall = float(walk(state, NOTHING).vy)
    keep = physics.KEEP_AIR
    sideways = next(
        vx
        for vx in np.float32(fall / keep) + np.arange(-4, 5, dtype=np.float32) * np.float32(2**-25)
        if np.float32(vx * keep) == np.float32(fall)
    )
    assert int(walk(state._replace(vx=jnp.float32(sideways)), NOTHING).num_ties) == 1


# Ends


def test_the_first_of_several_reasons_is_the_cause():
    ends = np.arange(32, dtype=np.uint8)
    expected = [CAUSES[1 + f"{mask:05b}"[::-1].index("1")] if mask else "" for mask in ends]
    found = [CAUSES[index] for index in np.asarray(jax.vmap(cause)(ends))]
    assert found == expected
    assert CAUSES[int(cause(np.uint8(END_COIN | END_MONSTER)))] == "coin"
    assert CAUSES[int(cause(np.uint8(END_SAW | END_TIME)))] == "saw"


def test_touching_a_monster_ends_the_episode():
    level = one_level(hand_made([Thing(MONSTER, 3, 1, -0.15, 0)]))
    state = reset(level)
    for _ in range(20):
        state = walk(state, NOTHING)
    assert int(state.ends) == END_MONSTER


def test_time_is_up_after_exactly_a_thousand_steps():
    levels, _ = generate_levels(np.array([0]), "easy")
    state = jax.vmap(reset)(levels)._replace(num_steps=jnp.array([MAX_STEPS - 2]))
    state = all_steps(state, np.array([NOTHING]))
    assert int(state.ends[0]) == 0
    state = all_steps(state, np.array([NOTHING]))
    assert (int(state.ends[0]), int(state.num_steps[0])) == (END_TIME, 1000)


def test_nothing_changes_after_the_end_and_no_number_is_lost():
    levels, _ = generate_levels(np.arange(256), "hard")
    states = jax.vmap(reset)(levels)
    # Mostly to the right and up: many episodes end.
    actions = np.random.default_rng(1).choice([LEFT, RIGHT, RIGHT, 8, 8], size=(300, 256))
    for path in actions.astype(np.int32):
        before, states = states, all_steps(states, path)
        ended = np.asarray(before.ends) != 0
        for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(states), strict=True):
            assert np.asarray(old)[ended].tobytes() == np.asarray(new)[ended].tobytes()
    assert (np.asarray(states.ends) != 0).mean() > 0.8
    for leaf in (states.x, states.y, states.vx, states.vy, states.monster_x, states.monster_vx):
        assert np.isfinite(leaf).all()


def test_a_million_random_steps_stay_in_bounds_and_every_end_has_one_cause():
    num_levels, num_steps = 512, 1000
    parts = [generate_levels(np.arange(num_levels), mode)[0] for mode in MODES]
    levels = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    # Every other level is played with all actions alike, the others mostly to the right and up.
    generator = np.random.default_rng(2)
    actions = generator.integers(NUM_ACTIONS, size=(num_steps, 2 * num_levels))
    actions[:, ::2] = generator.choice([LEFT, DOWN, UP, RIGHT, RIGHT, 8, 8], actions[:, ::2].shape)

    @jax.jit
    def play(levels: Level, actions: jax.Array) -> dict[str, jax.Array]:
        fresh = jax.vmap(reset)(levels)

        def one(states: State, action: jax.Array) -> tuple[State, dict[str, jax.Array]]:
            states = jax.vmap(step)(states, action)
            shown = {name: getattr(states, name) for name in ("x", "y", "vx", "vy", "ends")}
            shown["cause"] = jax.vmap(cause)(states.ends)
            shown["num_steps"] = states.num_steps
            for name in ("monster_x", "monster_vx"):
                shown[name] = jnp.abs(getattr(states, name)).max(axis=1)
            done = states.ends != 0

            def restart(new: jax.Array, old: jax.Array) -> jax.Array:
                return jnp.where(done.reshape(-1, *[1] * (new.ndim - 1)), new, old)

            return jax.tree.map(restart, fresh, states), shown

        return jax.lax.scan(one, fresh, actions)[1]

    shown = jax.device_get(play(levels, actions.astype(np.int32)))
    # None of these holds for a number that is not one. Rock is entered by a hundredth at most.
    assert ((shown["x"] > 1.48) & (shown["x"] < 51.52)).all()
    assert ((shown["y"] > 1 + TALL - 0.012) & (shown["y"] < 63)).all()
    assert (np.abs(shown["vx"]) <= 0.5).all()
    assert (np.abs(shown["vy"]) <= 1.5).all()
    assert (shown["monster_x"] <= AWAY + 0.5).all()
    assert (shown["monster_vx"] <= np.float32(0.15)).all()
    # A step ends the episode for reasons known, of which one counts, or not at all.
    ends, causes = shown["ends"], shown["cause"]
    assert (ends < 32).all()
    np.testing.assert_array_equal(causes > 0, ends > 0)
    ended = ends > 0
    assert ((ends[ended] >> (causes[ended] - 1)) & 1 == 1).all()
    np.testing.assert_array_equal((ends & END_TIME) > 0, shown["num_steps"] == MAX_STEPS)
    assert set(causes.flat) == set(range(len(CAUSES)))


def test_dtypes_are_promoted_nowhere_by_accident():
    levels, _ = generate_levels(np.array([3]), "hard")
    with jax.numpy_dtype_promotion("strict"):
        state = jax.eval_shape(reset, jax.tree.map(lambda leaf: leaf[0], levels))
        after = jax.eval_shape(step, state, jax.ShapeDtypeStruct((), jnp.int32))
    assert jax.tree.structure(state) == jax.tree.structure(after)
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)


# The comparison itself


def altered(recording: Recording, name: str, change: Callable[[np.ndarray], None]) -> Recording:
    values = recording[name].copy()
    change(values)
    return {**recording, name: values}


def test_a_single_bit_that_differs_is_found_and_named():
    recording = some_runs(recorded("short", "hard"), 40)
    row = int(recording["offset"][7])

    def next_float(x: np.ndarray) -> None:
        x[row] = np.nextafter(x[row], np.float32(9))

    result = compare_runs(altered(recording, "x", next_float), "hard")
    assert (result.identical, result.total) == (119, 120)
    assert result.first_difference.startswith(f"run 7 (seed {recording['seed'][7]}), step 1: x is")


def test_drift_is_measured_up_to_the_first_end_that_differs():
    recording = some_runs(recorded("traj", "hard"), 12)
    assert compare_runs(recording, "hard")[-2:] == (0.0, 0)
    first = int(recording["offset"][3])

    def away(x: np.ndarray) -> None:
        x[first + 5] += np.float32(0.25)
        x[first + 40] += np.float32(2)  # after the end that is altered below: not counted

    def end(done: np.ndarray) -> None:
        done[first + 20] = 1 - done[first + 20]

    result = compare_runs(altered(altered(recording, "x", away), "done", end), "hard")
    assert (result.drift, result.num_other_ends) == (pytest.approx(0.25, abs=1e-5), 1)
    assert result.identical == result.total - 1


def test_a_monster_that_differs_is_found_and_so_is_one_too_few():
    recording = some_runs(recorded("traj", "hard"), 5)
    run = int(np.flatnonzero(recording["mon_count"])[0])
    entry = int(recording["mon_offset"][run])
    for name in ("mon_x", "mon_vx"):

        def nudge(values: np.ndarray) -> None:
            values[entry] = np.nextafter(values[entry], np.float32(99))

        result = compare_runs(altered(recording, name, nudge), "hard")
        assert result.identical == result.total - 1
        assert f"run {run} " in result.first_difference and f"{name} is" in result.first_difference
    none = {
        **recording,
        "mon_count": recording["mon_count"] * 0,
        "mon_offset": recording["mon_offset"] * 0,
        "mon_x": recording["mon_x"][:0],
        "mon_vx": recording["mon_vx"][:0],
    }
    result = compare_runs(none, "hard")
    assert result.total - result.identical == (recording["mon_count"] > 0).sum()
    assert "number of monsters is" in result.first_difference


def test_the_sign_of_zero_counts():
    recording = some_runs(recorded("short", "hard"), 40)
    row = int(np.flatnonzero((recording["vy"] == 0) & ~np.signbit(recording["vy"]))[0])

    def turn(vy: np.ndarray) -> None:
        vy[row] = -vy[row]

    result = compare_runs(altered(recording, "vy", turn), "hard")
    assert result.identical == result.total - 1
    assert "vy is 0.0, recorded -0.0" in result.first_difference


def test_a_cell_that_differs_is_found_and_named():
    def dig(grid: np.ndarray) -> None:
        grid[2, 0, 3] = 100

    result = verify.compare_levels(altered(recorded("levels", "easy"), "grid", dig), "easy")
    assert (result.identical, result.total) == (399, 400)
    assert result.first_difference == "seed 2: grid"


def test_a_folder_is_compared_file_by_file(tmp_path: Path):
    for name in ("levels_easy", "levels_hard"):
        (tmp_path / f"{name}.npz").write_bytes((DATA / f"{name}.npz").read_bytes())
    found = [(result.what, result.identical) for result in verify.verify(tmp_path)]
    assert found == [("easy levels", 400), ("hard levels", 400)]


def test_a_folder_without_recordings_is_one_clear_error(tmp_path: Path):
    with pytest.raises(ValueError, match="holds no recording"):
        list(verify.verify(tmp_path))


def test_a_damaged_recording_is_one_clear_error(tmp_path: Path):
    path = tmp_path / "traj_easy.npz"
    path.write_bytes((DATA / "traj_easy.npz").read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"traj_easy\.npz cannot be read as arrays"):
        list(verify.verify(tmp_path))
    np.savez(path, seed=np.zeros(3, np.int32))
    with pytest.raises(ValueError, match=r"traj_easy\.npz is no recording of traj: it lacks off"):
        list(verify.verify(tmp_path))
