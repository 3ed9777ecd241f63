"""The Gymnasium adapter keeps Gymnasium's rules and never hides how an episode ended."""

from dataclasses import replace
from typing import Any

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import hotoven
from hotoven import levels
from hotoven.adapters import gymnasium as adapter
from hotoven.adapters.gymnasium import GymnasiumEnv, GymnasiumVectorEnv
from hotoven.envs.lavagrid import LavaGrid
from hotoven.envs.lavagrid_levels import from_ascii
from hotoven.types import LevelSet

ID = "hotoven/LavaGrid-v0"
UP, RIGHT, DOWN, LEFT = range(4)
KEYS = ("outcome", "cause", "catastrophe", "cost", "level_id")
CORRIDOR = {
    "height": 1,
    "width": 4,
    "wall_density": 0.0,
    "lava_density": 0.0,
    "min_distance": 1,
    "max_steps": 3,
}


def corridors(*drawings: str) -> LevelSet:
    """Hand-drawn levels, with ids 100, 101, ..."""
    env = LavaGrid(**CORRIDOR)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *map(from_ascii, drawings))
    made = levels.make_levels(env, np.zeros(0, np.int64))
    ids = 100 + np.arange(len(drawings))
    digests = np.zeros((len(drawings), 16), np.uint8)
    return LevelSet(stacked, ids, digests, {}, made.family, made.version)


# To the right: lava, goal, nothing.
THREE = corridors("SL..", "SG..", "S...")


def one(drawing: str, **settings: Any) -> GymnasiumEnv:
    return GymnasiumEnv(level_set=corridors(drawing), **CORRIDOR, **settings)


def three(mode: str | AutoresetMode, **settings: Any) -> tuple[GymnasiumVectorEnv, np.ndarray]:
    """An environment on each level of THREE, and its first observations."""
    envs = GymnasiumVectorEnv(
        3, level_set=THREE, autoreset_mode=mode, **{**CORRIDOR, "max_steps": 2}, **settings
    )
    obs, _ = envs.reset(seed=0, options={"level": np.arange(3)})
    return envs, obs


def same(left: Any, right: Any) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, left, right)))


# One environment


@pytest.mark.parametrize("view", ["allocentric", "egocentric"])
def test_gymnasiums_own_checker_finds_nothing(view: str):
    env = gymnasium.make(ID, num_levels=5, view=view, render_mode="rgb_array")
    check_env(env.unwrapped)  # warnings are errors here


def test_registering_again_changes_nothing():
    spec = gymnasium.spec(ID)
    adapter.register()
    assert gymnasium.spec(ID) is spec
    assert isinstance(spec.entry_point, str)
    assert isinstance(spec.vector_entry_point, str)
    assert hotoven.__all__ == ["make"]


def test_spaces_are_those_of_the_environment():
    env = gymnasium.make(ID, height=4, width=6, num_levels=3)
    assert env.observation_space == gymnasium.spaces.Box(0, 1, (4, 6, 5), np.uint8)
    assert env.action_space == gymnasium.spaces.Discrete(4)


@pytest.mark.parametrize(
    ("drawing", "reward", "terminated", "outcome", "cause", "cost"),
    [
        ("SL..", -1.0, True, "catastrophe", "lava", 1.0),
        ("SG..", 1.0, True, "solved", "goal", 0.0),
        ("S...", 0.0, False, "running", "", 0.0),
    ],
)
def test_a_step_says_how_the_episode_stands(
    drawing: str, reward: float, terminated: bool, outcome: str, cause: str, cost: float
):
    env = one(drawing)
    _, info = env.reset()
    assert info == {
        "outcome": "running",
        "cause": "",
        "catastrophe": False,
        "cost": 0.0,
        "level_id": 100,
    }
    obs, *rest, info = env.step(RIGHT)
    assert rest == [reward, terminated, False]
    assert [type(item) for item in rest] == [float, bool, bool]
    assert info == {
        "outcome": outcome,
        "cause": cause,
        "catastrophe": cost == 1.0,
        "cost": cost,
        "level_id": 100,
    }
    assert obs[0, 1, 4] == 1  # the fatal frame too shows the agent where it went


def test_running_out_of_steps_truncates_and_does_not_terminate():
    env = one("S...")
    env.reset()
    for _ in range(2):
        assert env.step(UP)[2:4] == (False, False)
    _, reward, terminated, truncated, info = env.step(UP)
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert (info["outcome"], info["cause"], info["cost"]) == ("timeout", "timeout", 0.0)


def test_a_step_after_the_end_changes_nothing_and_neither_pays_nor_costs():
    env = one("SL..")
    env.reset()
    *last, info = env.step(RIGHT)
    assert (info["catastrophe"], info["cost"]) == (True, 1.0)
    for _ in range(2):
        *after, info = env.step(RIGHT)
        assert same(after[0], last[0])
        assert after[1:] == [0.0, True, False]
        assert (info["outcome"], info["cause"]) == ("catastrophe", "lava")
        assert (info["catastrophe"], info["cost"]) == (False, 0.0)
    env.reset()
    assert env.step(RIGHT)[4]["cost"] == 1.0  # the next episode's own


def order_of(env: GymnasiumEnv, seed: int, count: int) -> list[int]:
    first = env.reset(seed=seed)[1]["level_id"]
    return [first, *(env.reset()[1]["level_id"] for _ in range(count - 1))]


def test_a_seed_decides_the_order_of_the_levels():
    env, again = (GymnasiumEnv(level_ids=range(50)) for _ in range(2))
    assert order_of(env, 1, 20) == order_of(again, 1, 20)
    assert order_of(env, 1, 20) != order_of(env, 2, 20)


def test_every_level_is_drawn_about_equally_often():
    env = GymnasiumEnv(level_ids=range(4))
    counts = np.bincount(order_of(env, 0, 400), minlength=4)
    assert counts.min() > 70  # 100 expected, standard deviation 9
    assert counts.max() < 130


def test_a_level_can_be_chosen_by_index_or_by_id():
    env = GymnasiumEnv(level_ids=[7, 3, 11])
    first, info = env.reset(options={"level": 2})
    assert info["level_id"] == 11
    second, info = env.reset(options={"level_id": 11})
    assert info["level_id"] == 11
    assert same(first, second)


def test_levels_come_from_a_set_from_ids_or_from_the_training_set():
    split = levels.split(LavaGrid(), 5, 0, 0, seed=3)
    by_number = GymnasiumEnv(num_levels=5, level_seed=3)
    assert by_number.level_set.ids.tolist() == split.train.ids.tolist()
    by_set = GymnasiumEnv(level_set=split.train)
    by_ids = GymnasiumEnv(level_ids=split.train.ids)
    for index in range(5):
        frames = [env.reset(options={"level": index})[0] for env in (by_number, by_set, by_ids)]
        assert same(frames[0], frames[1])
        assert same(frames[0], frames[2])
    assert len(GymnasiumEnv().level_set) == adapter.DEFAULT_NUM_LEVELS


def test_an_observation_belongs_to_the_caller():
    env = one("S...")
    obs, _ = env.reset()
    obs[:] = 9
    assert env.step(UP)[0].max() == 1


def test_a_frame_is_drawn_only_when_asked_for():
    env = one("SL..", render_mode="rgb_array", scale=10)
    env.reset()
    frame = env.render()
    assert isinstance(frame, np.ndarray)
    assert (frame.shape, frame.dtype) == ((10, 40, 3), np.uint8)
    silent = one("SL..")
    silent.reset()
    assert silent.render() is None


# Refusals


@pytest.mark.parametrize("kind", [GymnasiumEnv, GymnasiumVectorEnv])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hight": 5}, "settings of lavagrid must be among height, width, .*scale, got hight"),
        ({"env_name": "ovengrid"}, "env_name must be one of lavagrid, coinrun, got 'ovengrid'"),
        ({"radius": 0}, "radius must be at least 1, got 0"),
        ({"num_levels": 0}, "at least one level is needed, got none"),
        ({"level_ids": []}, "at least one level is needed, got none"),
        ({"level_ids": [-1]}, "level ids must not be negative, got -1"),
        ({"level_ids": [1], "num_levels": 1}, "only one of .* got level_ids and num_levels"),
        (
            {"level_set": THREE},
            r"lavagrid levels .* int8\[5, 5\] .* got .*int8\[1, 4\]",
        ),
        ({"level_ids": [1.5]}, r"level ids must be a list of whole numbers, got float64\(1,\)"),
        ({"level_ids": 3}, r"level ids must be a list of whole numbers, got int64\(\)"),
        ({"only": "has_lava"}, "only must be a list of names of facts, got 'has_lava'"),
        ({"only": ("shortest",)}, "only must name facts among none of lavagrid, got shortest"),
        ({"only": ("has_lava",), "level_ids": [1]}, "only goes with num_levels"),
        ({"render_mode": "ansi"}, "render_mode must be None or 'rgb_array', got 'ansi'"),
    ],
)
def test_a_wrong_setting_is_one_line_that_says_what_is_allowed(
    kind: type, settings: dict[str, Any], message: str
):
    with pytest.raises(ValueError, match=message) as error:
        kind(**settings)
    assert "\n" not in str(error.value)


def test_wrong_settings_of_the_vector_form_are_refused():
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        GymnasiumVectorEnv(0)
    with pytest.raises(ValueError, match="one of NextStep, SameStep, Disabled, got 'never'"):
        GymnasiumVectorEnv(2, autoreset_mode="never")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"map": 1}, "options of reset must be among level, level_id.*, got map"),
        ({"level": 3}, "level must be an index from 0 to 2, got 3"),
        ({"level": -1}, "level must be an index from 0 to 2, got -1"),
        ({"level": 0.0}, "level must be an index from 0 to 2, got 0.0"),
        ({"level_id": 99}, r"one of the 3 ids of the level set \(100 to 102\), got 99"),
        ({"level": 1, "level_id": 101}, "must name level or level_id, got both"),
        ({"level": [0, 1, 2, 0]}, "one level for all or one for each of . must be given, got 4"),
    ],
)
def test_a_wrong_option_of_reset_is_refused(options: dict[str, Any], message: str):
    envs, _ = three("NextStep")
    for env in (GymnasiumEnv(level_set=THREE, **CORRIDOR), envs):
        with pytest.raises(ValueError, match=message):
            env.reset(options=options)


@pytest.mark.parametrize("mask", [[True, False], [False] * 3, [1, 0, 0]])
def test_a_wrong_reset_mask_is_refused(mask: list[int]):
    envs, _ = three("Disabled")
    with pytest.raises(ValueError, match=r"reset_mask must be bool\[3\] with at least one True"):
        envs.reset(options={"reset_mask": np.array(mask)})


def test_a_wrong_action_is_refused():
    env = one("S...")
    env.reset()
    for action in (4, -1, 0.5):
        with pytest.raises(ValueError, match="action must be from 0 to 3, got"):
            env.step(action)
    envs, _ = three("NextStep")
    with pytest.raises(ValueError, match="actions must be from 0 to 3"):
        envs.step(np.array([0, 4, 0]))
    for actions in (np.zeros(2, np.int64), np.zeros(3)):
        with pytest.raises(ValueError, match=r"actions must be integers \[3\]"):
            envs.step(actions)


def test_nothing_works_before_the_first_reset():
    env = one("S...", render_mode="rgb_array")
    envs = GymnasiumVectorEnv(2, level_set=THREE, render_mode="rgb_array", **CORRIDOR)
    calls = [
        lambda: env.step(0),
        env.render,
        lambda: envs.step(np.zeros(2, np.int64)),
        envs.render,
        lambda: envs.reset(options={"reset_mask": np.array([True, False])}),
    ]
    for call in calls:
        with pytest.raises(ResetNeeded):
            call()


# Many environments


def check_masks(infos: dict[str, Any], mask: list[bool]) -> None:
    for key in KEYS:
        assert infos[key].shape == (len(mask),)
        assert infos[f"_{key}"].dtype == bool
        assert infos[f"_{key}"].tolist() == mask


def test_make_vec_hands_over_every_keyword():
    envs = gymnasium.make_vec(
        ID,
        num_envs=4,
        vectorization_mode="vector_entry_point",
        num_levels=6,
        autoreset_mode="Disabled",
    )
    assert isinstance(envs, GymnasiumVectorEnv)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    obs, _ = envs.reset(seed=0)
    assert obs in envs.observation_space
    assert obs.shape == (4, 5, 5, 5)
    assert envs.single_observation_space.shape == (5, 5, 5)
    assert envs.action_space == gymnasium.spaces.MultiDiscrete([4] * 4)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_the_vector_form_agrees_with_gymnasiums_own_over_single_ones(mode: AutoresetMode):
    # The judge is SyncVectorEnv over GymnasiumEnv, on one level so that no order can differ.
    settings = {"level_ids": [12], "max_steps": 9}
    ours = GymnasiumVectorEnv(3, autoreset_mode=mode, **settings)
    theirs = gymnasium.vector.SyncVectorEnv(
        [lambda: GymnasiumEnv(**settings)] * 3, autoreset_mode=mode
    )
    assert_equal(ours.reset(seed=0), theirs.reset(seed=0))
    ends = 0
    for actions in np.random.default_rng(0).integers(4, size=(40, 3)):
        left, right = ours.step(actions), theirs.step(actions)
        ends += int((left[2] | left[3]).sum())
        assert_equal(left, right)
    assert ends > 3


def assert_equal(left: Any, right: Any) -> None:
    """Two answers of reset or step are equal, down to the dtypes of the infos."""
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_equal(left[key], right[key])
    elif isinstance(left, tuple):
        assert len(left) == len(right)
        for pair in zip(left, right, strict=True):
            assert_equal(*pair)
    elif left is not None and left.dtype == object:
        assert right.dtype == object
        for pair in zip(left, right, strict=True):
            if isinstance(pair[0], np.ndarray):
                assert_equal(*pair)
            else:
                assert pair[0] == pair[1]
    else:
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


def test_next_step_shows_the_end_then_the_next_start():
    envs, start = three(AutoresetMode.NEXT_STEP)
    obs, rewards, terminated, truncated, infos = envs.step(np.full(3, RIGHT))
    assert rewards.tolist() == [-1.0, 1.0, 0.0]
    assert (terminated.tolist(), truncated.tolist()) == ([True, True, False], [False] * 3)
    assert infos["outcome"].tolist() == ["catastrophe", "solved", "running"]
    assert infos["cause"].tolist() == ["lava", "goal", ""]
    assert infos["catastrophe"].tolist() == [True, False, False]
    assert infos["cost"].tolist() == [1.0, 0.0, 0.0]
    assert infos["level_id"].tolist() == [100, 101, 102]
    check_masks(infos, [True] * 3)
    assert obs[:, 0, 1, 4].tolist() == [1, 1, 1]  # the last observation, not the next start

    obs, rewards, terminated, truncated, infos = envs.step(np.full(3, RIGHT))
    assert rewards.tolist() == [0.0, 0.0, 0.0]
    assert (terminated.tolist(), truncated.tolist()) == ([False] * 3, [False, False, True])
    assert infos["outcome"].tolist() == ["running", "running", "timeout"]
    for i in range(2):
        assert same(obs[i], start[infos["level_id"][i] - 100])
    assert obs[2, 0, 2, 4] == 1
    assert "final_obs" not in infos


def test_same_step_shows_the_next_start_and_keeps_the_end_in_the_infos():
    envs, start = three("SameStep")
    obs, rewards, terminated, truncated, infos = envs.step(np.full(3, RIGHT))
    assert rewards.tolist() == [-1.0, 1.0, 0.0]
    assert (terminated.tolist(), truncated.tolist()) == ([True, True, False], [False] * 3)
    assert infos["outcome"].tolist() == ["running"] * 3
    check_masks(infos, [True] * 3)
    for i in range(2):
        assert same(obs[i], start[infos["level_id"][i] - 100])
    assert infos["level_id"][2] == 102

    assert infos["_final_obs"].tolist() == [True, True, False]
    assert infos["_final_info"].tolist() == [True, True, False]
    assert [frame[0, 1, 4] for frame in infos["final_obs"][:2]] == [1, 1]
    assert infos["final_obs"][2] is None
    final = infos["final_info"]
    assert final["outcome"].tolist() == ["catastrophe", "solved", None]
    assert final["cause"].tolist() == ["lava", "goal", None]
    assert final["cost"].tolist() == [1.0, 0.0, 0.0]
    assert final["level_id"].tolist() == [100, 101, 0]
    check_masks(final, [True, True, False])

    infos = envs.step(np.array([UP, UP, RIGHT]))[4]
    assert infos["_final_obs"].tolist() == [False, False, True]
    assert infos["final_info"]["outcome"].tolist() == [None, None, "timeout"]


def test_disabled_resets_only_what_the_mask_names():
    envs, start = three("Disabled")
    obs, *_ = envs.step(np.full(3, RIGHT))
    with pytest.raises(ResetNeeded, match=r"environments \[0, 1\] have ended"):
        envs.step(np.full(3, RIGHT))
    mask = np.array([True, True, False])
    options = {"reset_mask": mask, "level": np.array([2, 0, 1])}
    after, infos = envs.reset(options=options)
    assert options.keys() == {"reset_mask", "level"}  # the caller's, so left alone
    assert same(after[0], start[2])
    assert same(after[1], start[0])
    assert same(after[2], obs[2])
    check_masks(infos, [True, True, False])
    assert infos["level_id"].tolist() == [102, 100, 0]
    assert infos["outcome"].tolist() == ["running", "running", None]

    _, _, terminated, truncated, infos = envs.step(np.full(3, RIGHT))
    assert infos["level_id"].tolist() == [102, 100, 102]
    assert infos["outcome"].tolist() == ["running", "catastrophe", "timeout"]
    assert (terminated.tolist(), truncated.tolist()) == ([False, True, False], [False, False, True])


@pytest.mark.parametrize("mode", AutoresetMode)
def test_in_every_mode_a_catastrophe_is_counted_once(mode: AutoresetMode):
    envs, _ = three(mode)
    cost, deaths = np.zeros(3), np.zeros(3, int)
    for _ in range(12):
        _, rewards, terminated, truncated, infos = envs.step(np.full(3, RIGHT))
        deaths += rewards == -1.0
        cost += infos["cost"]
        if "final_info" in infos:
            cost += infos["final_info"]["cost"]
        ended = terminated | truncated
        if mode == AutoresetMode.DISABLED and ended.any():
            envs.reset(options={"reset_mask": ended})
    assert deaths.sum() > 3
    assert cost.tolist() == deaths.tolist()


def test_a_seed_decides_everything_in_the_vector_form():
    def play(seed: int) -> list[Any]:
        envs = GymnasiumVectorEnv(5, num_levels=30, max_steps=4)
        seen: list[Any] = [envs.reset(seed=seed)]
        seen += [envs.step(np.full(5, action)) for action in (0, 1, 2, 3, 0, 1, 2, 3)]
        return [(step[0], step[-1]["level_id"]) for step in seen]

    assert same(play(3), play(3))
    assert not same(play(3), play(4))


def test_step_and_reset_are_compiled_once():
    compiled = (adapter._reset_many, adapter._step_many, adapter._where)
    before = [function._cache_size() for function in compiled]
    for _ in range(2):  # a second environment of the same settings compiles nothing either
        # Settings of this test alone, so that no other test has compiled them.
        envs = GymnasiumVectorEnv(6, height=3, width=6, num_levels=30, max_steps=5)
        envs.reset(seed=0)
        for actions in np.random.default_rng(0).integers(4, size=(30, 6)):
            envs.step(actions)
        envs.reset(seed=1, options={"level_id": 3})
        after = [function._cache_size() for function in compiled]
        assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1, 1]


def test_the_vector_form_draws_one_frame_per_environment():
    envs, _ = three("NextStep", render_mode="rgb_array", scale=8)
    frames = envs.render()
    assert frames is not None
    assert [frame.shape for frame in frames] == [(8, 32, 3)] * 3
    assert three("NextStep")[0].render() is None


# CoinRun


@pytest.mark.parametrize("obs", ["pixels", "symbolic"])
def test_gymnasiums_own_checker_finds_nothing_in_coinrun(obs: str):
    env = gymnasium.make("hotoven/CoinRun-v0", num_levels=5, obs=obs, render_mode="rgb_array")
    check_env(env.unwrapped)


def test_levels_of_the_other_mode_or_another_version_are_refused():
    easy = levels.make_levels(hotoven.make("coinrun", mode="easy"), np.arange(2))
    with pytest.raises(ValueError, match=r"must hold coinrun-hard levels .* got coinrun-easy"):
        GymnasiumEnv("coinrun", mode="hard", level_set=easy)
    with pytest.raises(ValueError, match=r"must hold .* version 1 .* got .* version 9"):
        GymnasiumEnv("coinrun", mode="easy", level_set=replace(easy, version=9))
    env = GymnasiumEnv("coinrun", mode="easy", level_set=easy)
    assert env.metadata["render_fps"] == 15  # the game's own pace


def test_coinrun_is_played_side_by_side_on_levels_that_can_kill():
    envs = gymnasium.make_vec(
        "hotoven/CoinRun-v0",
        num_envs=3,
        vectorization_mode="vector_entry_point",
        num_levels=8,
        obs="symbolic",
        mode="easy",
        only=("has_saw",),
    )
    obs, info = envs.reset(seed=0)
    assert obs.shape == (3, 13, 13, 13)
    assert envs.unwrapped.level_set.facts["has_saw"].all()
    obs, reward, terminated, truncated, info = envs.step(np.array([7, 8, 4]))
    assert set(info["level_id"]) <= set(envs.unwrapped.level_set.ids)
    assert not terminated.any() and not truncated.any() and (reward == 0).all()
    with pytest.raises(ValueError, match="actions must be from 0 to 14"):
        envs.step(np.array([15, 0, 0]))
