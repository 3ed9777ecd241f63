"""The settings of the CoinRun study as plain data, and the levels that they name."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from hotoven import levels
from hotoven.envs.coinrun.env import CoinRun
from hotoven.envs.coinrun.helpers import HELPERS
from hotoven.learners.danger import DangerConfig
from hotoven.learners.ppo import PPOConfig, make_ppo
from hotoven.studies.parts import check_seeds, check_sizes
from hotoven.types import LARGEST, LevelSet

DEALT: Final = 2048  # levels dealt to each set, of which it keeps as many as it needs
PLANNER: Final = "planner"  # the helper who is asked at random, too
PREDICTED: Final = ("random_step", "mean")  # ways of acting whose danger is predicted, as the post
WATCHED: Final = "mean"  # the way of acting that asks for help


@dataclass(frozen=True)
class CoinRunStudy:
    """The CoinRun study's settings."""

    env: CoinRun = CoinRun()  # the environment
    ppo: PPOConfig = PPOConfig()  # training of one agent
    danger: DangerConfig = DangerConfig()  # the classifier whose probability is one of the scores
    sizes: tuple[int, ...] = (10, 200)  # numbers of training levels, growing
    num_members: int = 5  # agents in an ensemble
    hold: int = 10  # steps for which random_hold keeps a member
    margin: float = 0.5  # mean_hysteresis keeps an action this much less likely than the best
    windows: tuple[int, ...] = (1, 3, 5, 10, 25)  # steps ahead in which a catastrophe counts
    alarm_window: int = 10  # the one of them that alarms and the learned score are made for
    num_test_levels: int = 1000  # unseen levels, never used for tuning
    num_calibration_levels: int = 1000  # unseen levels on which thresholds are chosen
    num_validation_levels: int = 500  # unseen levels for tuning, coefficients and the learned head
    num_shifted_levels: int = 500  # levels of the other mode, where a promise need not hold
    num_train_levels_played: int = 200  # episodes on training levels, each as often as that allows
    promises: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)  # shares left unannounced
    delta: float = 0.1  # learn-then-test may fail with this probability
    min_lead: int = 5  # steps before a death by which an alarm has to come to announce it
    helpers: tuple[str, ...] = tuple(HELPERS)  # asked for help; the planner always, at random, too
    help_steps: int = 10  # steps for which a helper takes over
    num_help_levels: int = 250  # test levels played with a helper, at most
    num_help_thresholds: int = 8  # from always asking to never asking
    num_inspected_levels: int = 100  # test levels of which each member's word is kept, at most
    tune: bool = False  # play the validation levels in place of the test levels
    num_chunks: int = 20  # pieces of one training; checkpoints are written between them
    level_seed: int = 0  # which levels
    seed: int = 0  # which agents

    def __post_init__(self) -> None:
        check_sizes(self.sizes, least=1)
        check_seeds(self.seed, self.level_seed)
        if not self.windows or list(self.windows) != sorted(set(self.windows)):
            raise ValueError(f"windows must be different and growing, got {list(self.windows)}")
        for name, least in (
            ("num_members", 2),  # a standard deviation and a disagreement need two
            ("hold", 1),
            ("num_test_levels", 2),
            ("num_calibration_levels", 2),
            ("num_validation_levels", 2),
            ("num_shifted_levels", 2),
            ("num_train_levels_played", 1),
            ("help_steps", 1),
            ("num_help_levels", 1),
            ("num_help_thresholds", 2),
            ("num_inspected_levels", 0),
            ("num_chunks", 1),
            ("min_lead", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("hold", "help_steps"):
            if getattr(self, name) > LARGEST:
                raise ValueError(f"{name} must be at most {LARGEST}, got {getattr(self, name)}")
        if self.windows[-1] > LARGEST:
            raise ValueError(f"windows must be at most {LARGEST} each, got {list(self.windows)}")
        if self.windows[0] < 1:
            raise ValueError(f"windows must be at least 1 each, got {list(self.windows)}")
        if self.alarm_window not in self.windows:
            raise ValueError(
                f"alarm_window must be one of windows {list(self.windows)}, got {self.alarm_window}"
            )
        given = set(self.helpers)
        if PLANNER not in given or not given <= set(HELPERS) or len(given) < len(self.helpers):
            raise ValueError(
                f"helpers must be some of {list(HELPERS)}, each once, the planner among them, "
                f"got {list(self.helpers)}"
            )
        if not all(0.0 < share < 1.0 for share in self.promises) or not self.promises:
            raise ValueError(f"promises must be between 0 and 1, got {list(self.promises)}")
        if list(self.promises) != sorted(set(self.promises)):
            raise ValueError(f"promises must be different and growing, got {list(self.promises)}")
        if self.min_lead >= self.env.max_steps:
            raise ValueError(
                f"min_lead must be below env.max_steps ({self.env.max_steps}), got {self.min_lead}"
            )
        if not 0.0 < self.delta < 1.0:
            raise ValueError(f"delta must be between 0 and 1, got {self.delta}")
        if not 0.0 <= self.margin <= 1.0:
            raise ValueError(f"margin must be from 0 to 1, got {self.margin}")
        make_ppo(self.ppo, self.env)  # raises where the two do not go together


# See docs/coinrun-study.md, "How the presets were chosen".
_QUICK = CoinRunStudy(
    env=CoinRun(mode="easy", obs="symbolic"),
    ppo=PPOConfig(
        net="mlp",
        hidden=(128,),
        learning_rate=2e-3,
        learning_rate_end=0.1,
        gamma=0.99,
        entropy_weight_end=0.0,
        num_envs=64,
        num_steps=128,
        num_minibatches=8,
        num_epochs=1,
        num_iterations=500,
    ),
    danger=DangerConfig(filters=(), hidden=(64,), pool=False),
)


PRESETS = {
    "quick": _QUICK,
    "full": CoinRunStudy(
        env=CoinRun(mode="hard", obs="pixels"),
        ppo=PPOConfig(
            net="nature",
            num_iterations=1530,  # 25 million steps of each agent
            bfloat16=True,
        ),
        danger=DangerConfig(filters=(), hidden=(64,), pool=False),
        sizes=(10, 50, 200, 1000),
        num_train_levels_played=1000,
        num_chunks=30,
    ),
}


class Sets(NamedTuple):
    """The levels of a study, no two alike but for `shifted`, which are of the other mode."""

    train: LevelSet
    validation: LevelSet
    calibration: LevelSet  # exchangeable with the test levels
    test: LevelSet
    shifted: LevelSet


def make_sets(study: CoinRunStudy) -> Sets:
    """The study's levels: one draw of distinct layouts, put in random order and dealt out.

    A set that is filled first takes the layouts that are common and harmless; one filled after it
    is left with rarer ones. Danger on unseen levels is compared with that on training levels, and
    thresholds are promised for levels like those that they were chosen on, so all sets, and the
    first levels of each, have to be alike. A larger training set begins with the smaller one, and
    no set depends on the size of another, as long as none is larger than `DEALT`.
    """
    sizes = {
        "train": study.sizes[-1],
        "validation": study.num_validation_levels,
        "calibration": study.num_calibration_levels,
        "test": study.num_test_levels,
    }
    each = num_dealt(sizes.values())
    drawn = levels.split(study.env, 0, 0, each * len(sizes), study.level_seed).test
    # raw words, so that numpy's own ways of shuffling may change
    words = np.random.PCG64(study.level_seed).random_raw(len(drawn))
    hands = np.argsort(words, kind="stable").reshape(len(sizes), each)
    dealt = {
        name: levels.take(drawn, hand[:size])
        for hand, (name, size) in zip(hands, sizes.items(), strict=True)
    }
    other = replace(study.env, mode="hard" if study.env.mode == "easy" else "easy")
    shifted = levels.split(other, 0, 0, study.num_shifted_levels, study.level_seed).test
    if study.tune:
        dealt["test"] = dealt["validation"]
    return Sets(**dealt, shifted=shifted)


def num_dealt(sizes: Iterable[int]) -> int:
    """How many levels are dealt to each set, for the largest of them to have enough."""
    return DEALT * -(-max(sizes) // DEALT)
