"""Tables as a run of the CoinRun study leaves them, made up, but for episodes that can be replayed.

Values of members fall and spread before a death, so that there is something to predict.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from hotoven import levels
from hotoven.envs.coinrun.env import CoinRun
from hotoven.evaluation import outcomes
from hotoven.evaluation.coherence import MEASURES
from hotoven.evaluation.knowing import alarm_rows, predictions, promise_rows
from hotoven.mechanisms.acting import ACTING
from hotoven.types import OUTCOMES, RUNNING, LevelSet

ENV = CoinRun(mode="easy", obs="symbolic", max_steps=60)
SIZES = (10, 200)
WINDOWS = (1, 3, 10)
COUNTS = ("episode_return", "num_blocked", "num_false_blocks", "num_all_blocked")
NUM_LEVELS = 60  # of the test set
CAUSES = ("lava", "saw", "monster")


def level_set(num: int = NUM_LEVELS) -> LevelSet:
    return levels.make_levels(ENV, np.arange(num))


def played(chosen: LevelSet) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Actions, outcomes, causes [L, T] and steps [L] of an agent that runs and sometimes jumps."""
    draws = np.random.default_rng(3).random((len(chosen), ENV.max_steps))
    actions = np.where(draws < 0.25, 8, 7).astype(np.int32)

    def one(level, actions):
        def step(state, action):
            state, shown = ENV.step(state, action)
            return state, (shown.outcome, shown.cause)

        return jax.lax.scan(step, ENV.reset(level)[0], actions)[1]

    ended, cause = map(
        np.asarray, jax.jit(jax.vmap(one))(jax.tree.map(jnp.asarray, chosen.levels), actions)
    )
    return actions, ended, cause, (ended != RUNNING).argmax(axis=1) + 1


def replayed_steps(chosen: LevelSet, dying: bool) -> pa.Table:
    actions, ended, cause, num_steps = played(chosen)
    rows = []
    for index, length in enumerate(num_steps):
        if not dying and OUTCOMES[ended[index, length - 1]] == "catastrophe":
            continue
        rows += step_rows(
            "test", 10, "mean", index, int(length), OUTCOMES[ended[index, length - 1]],
            actions[index, :length], ENV.causes[cause[index, length - 1]],
            int(chosen.ids[index]),
        )  # fmt: skip
    return pa.Table.from_pylist(rows)


def step_rows(set, size, method, index, length, outcome, actions=None, cause="", level_id=None):
    """One episode's rows of the table of steps."""
    rng = np.random.default_rng([size, len(method), len(set), index])
    to_death = length - 1 - np.arange(length)
    danger = np.exp(-to_death / 5) * (outcome == "catastrophe")
    mu = 7 + rng.normal(0, 0.7, length) - 5 * danger
    sigma = 0.6 + rng.gamma(2, 0.15, length) + 1.2 * danger * (SIZES[0] / size)
    rows = []
    for step in range(length):
        last = step == length - 1
        rows.append(
            {
                "set": set,
                "num_train_levels": size,
                "method": method,
                "replication": 0,
                "member": -1,
                "level_index": index,
                "level_id": 5000 + index if level_id is None else level_id,
                "step": step,
                "action": 7 if actions is None else int(actions[step]),
                "outcome": outcome if last else "running",
                "cause": cause if last else "",
                "supported": True,
                "mu": np.float32(mu[step]),
                "sigma": np.float32(sigma[step]),
                "entropy": np.float32(rng.random() + danger[step]),
                "margin": np.float32(-rng.random()),
                "disagreement": np.float32(rng.random()),
                "blocker": np.float32(0.3 * rng.random() + 0.3 * danger[step]),
                "head": np.float32(0.2 * rng.random() + 0.6 * danger[step]),
            }
        )
    return rows


def made_up_steps(set, size, method, num, share_died):
    rng = np.random.default_rng([size, len(set), num])
    rows = []
    for index in range(num):
        outcome = "catastrophe" if rng.random() < share_died else "solved"
        rows += step_rows(set, size, method, index, int(rng.integers(20, 40)), outcome)
    return pa.Table.from_pylist(rows)


def all_steps(chosen: LevelSet, dying: bool = True) -> pa.Table:
    share = 0.35 if dying else 0.0
    return pa.concat_tables(
        [
            replayed_steps(chosen, dying),
            made_up_steps("test", 200, "mean", NUM_LEVELS, share / 2),
            *(made_up_steps("test", size, "random_step", NUM_LEVELS, share) for size in SIZES),
            *(
                made_up_steps(set, size, "mean", 90, share)
                for set in ("calibration", "shifted")
                for size in SIZES
            ),
        ],
        promote_options="permissive",
    )


def episodes(sizes=SIZES, num_levels: int = 120, dying: bool = True) -> pa.Table:
    rows = []
    for size in sizes:
        for place, method in enumerate(ACTING):
            for set, share in (
                ("train", 0.02),
                ("test", (0.28 - 0.02 * place) * (10 / size) ** 0.2),
            ):
                num = num_levels if set == "test" else 10
                for member in range(5) if method == "single" else (-1,):
                    rng = np.random.default_rng([size, place, len(set), member + 1])
                    died, late = rng.random(num) < share * dying, rng.random(num) < 0.08
                    for index in range(num):
                        outcome = "timeout" if late[index] else "solved"
                        outcome = "catastrophe" if died[index] else outcome
                        cause = {"solved": "coin", "timeout": "timeout"}.get(
                            outcome, CAUSES[rng.integers(3)]
                        )
                        rows.append(
                            {
                                "set": set,
                                "num_train_levels": size,
                                "replication": 0,
                                "method": method,
                                "member": member,
                                "level_index": index,
                                "level_id": 5000 + index,
                                "outcome": outcome,
                                "cause": cause,
                                "length": 30,
                                **dict.fromkeys(COUNTS, 0),
                            }
                        )
    return pa.Table.from_pylist(rows)


def coherence(sizes=SIZES, dying: bool = True) -> pa.Table:
    rows = []
    for size in sizes:
        for place, method in enumerate(ACTING):
            for measure in MEASURES.values():
                value = 0.2 + 0.08 * place if measure != "run length" else 9.0 - place
                if "fatal" in measure and not dying:
                    continue
                rows.append(
                    {
                        "num_train_levels": size,
                        "method": method,
                        "measure": measure,
                        "estimate": value,
                        "low": 0.9 * value,
                        "high": 1.1 * value,
                        "num_levels": 120,
                    }
                )
    return pa.Table.from_pylist(rows)


def help_rates(sizes=SIZES) -> pa.Table:
    rows = []
    for size in sizes:
        for helper, worth in (("planner", 0.9), ("stand_still", 0.6), ("retreat", 0.3)):
            for requests in (0.0, 0.2, 0.5, 1.1, 2.5, 6.0, 14.0, 28.0):
                avoided = 0.25 * worth * (1 - np.exp(-requests))
                solved = 0.65 + avoided if helper == "planner" else 0.65 / (1 + requests / 6)
                rows.append(
                    {
                        "num_train_levels": size,
                        "helper": helper,
                        "threshold": -requests,
                        "num_levels": 250,
                        "requests_per_episode": requests,
                        "helped_share": requests / 30,
                        "catastrophe_rate": 0.25 - avoided,
                        "catastrophe_low": 0.9 * (0.25 - avoided),
                        "catastrophe_high": 1.15 * (0.25 - avoided),
                        "solved_rate": solved,
                        "avoided": avoided,
                        "avoided_low": 0.8 * avoided,
                        "avoided_high": 1.2 * avoided,
                    }
                )
    return pa.Table.from_pylist(rows)


def all_tables(chosen: LevelSet, dying: bool = True) -> dict[str, pa.Table]:
    """Every table that figures and findings read; without deaths where not `dying`."""
    steps, ended = all_steps(chosen, dying), episodes(dying=dying)
    pairs = [
        {"num_train_levels": size, "acting": acting, "window": window, "alpha": -1.0, "beta": 0.5}
        for size in SIZES
        for acting in ("mean", "random_step")
        for window in WINDOWS
    ]
    told = predictions(steps, pairs, SIZES, ENV.max_steps, ("random_step", "mean"), WINDOWS)
    return told | {
        "steps": steps,
        "episodes": ended,
        "rates": outcomes.rates(ended),
        "differences": outcomes.paired_differences(ended),
        "coherence": coherence(dying=dying),
        "help_rates": help_rates(),
        "alarms": alarm_rows(steps, pairs, SIZES, ENV.max_steps, ("mean",), 10, 3),
        "promises": promise_rows(
            steps, pairs, SIZES, ENV.max_steps, "mean", 10, 3, (0.02, 0.1, 0.2, 0.3, 0.5), 0.1
        ),
    }
