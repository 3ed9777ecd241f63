"""The settings of the gridworld study as plain data, and the levels that they name."""

from dataclasses import dataclass, replace

from hotoven import levels
from hotoven.envs.lavagrid import LavaGrid
from hotoven.learners.danger import DangerConfig
from hotoven.learners.dqn import DQNConfig
from hotoven.studies.parts import check_seeds, check_sizes


@dataclass(frozen=True)
class LavaGridStudy:
    """The gridworld study's settings."""

    env: LavaGrid = LavaGrid()  # the environment
    dqn: DQNConfig = DQNConfig()  # training of one agent
    danger: DangerConfig = DangerConfig()  # the blocker's classifier
    sizes: tuple[int, ...] = (10, 100, 1000)  # numbers of training levels, growing
    num_members: int = 9  # agents in an ensemble
    num_replications: int = 1  # independent ensembles for each number of training levels
    mc_dropout: float = 0.1  # share of units dropped by the MC-dropout agent
    block_threshold: float = 0.5  # the blocker blocks above this probability
    num_test_levels: int = 1000  # unseen levels, never used for tuning
    num_validation_levels: int = 1000  # unseen levels for tuning
    tune: bool = False  # play the validation levels in place of the test levels
    num_train_levels_played: int = 1000  # training levels played in evaluation, at most
    num_traced_levels: int = 100  # test levels recorded step by step
    num_chunks: int = 20  # pieces of one training; checkpoints are written between them
    level_seed: int = 0  # which levels
    seed: int = 0  # which agents

    def __post_init__(self) -> None:
        check_sizes(self.sizes, least=2)
        check_seeds(self.seed, self.level_seed)
        for name in (
            "num_members",
            "num_replications",
            "num_test_levels",
            "num_train_levels_played",
            "num_traced_levels",
            "num_chunks",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_validation_levels < 0:
            raise ValueError(
                f"num_validation_levels must be at least 0, got {self.num_validation_levels}"
            )
        for name in ("num_members", "num_replications"):
            if getattr(self, name) > 10_000:
                raise ValueError(f"{name} must be at most 10000, got {getattr(self, name)}")
        if not self.dqn.hidden:
            raise ValueError("dqn.hidden must be a layer for MC-dropout, or several, got ()")
        if self.tune and self.num_validation_levels < 1:
            raise ValueError("tune needs num_validation_levels of at least 1, got 0")
        if not 0.0 < self.mc_dropout < 1.0:
            raise ValueError(f"mc_dropout must be between 0 and 1, got {self.mc_dropout}")
        if not 0.0 <= self.block_threshold <= 1.0:
            raise ValueError(f"block_threshold must be from 0 to 1, got {self.block_threshold}")


# Found on training and validation levels: docs/differences.md, "How the presets were chosen".
_QUICK = LavaGridStudy(
    dqn=DQNConfig(
        filters=(16, 32),
        hidden=(128,),
        learning_rate=1e-3,
        learning_rate_end=0.1,
        gamma=0.8,
        batch_size=32,
        replay_capacity=20_480,
        num_updates=8000,
        num_envs=128,
        steps_per_update=16,
        target_period=128,
        epsilon_decay=0.9995,
        double_q=False,
    )
)


PRESETS = {
    "quick": _QUICK,
    "full": replace(
        _QUICK,
        dqn=replace(
            _QUICK.dqn,
            learning_rate=1.5e-3,
            learning_rate_end=0.0,
            batch_size=64,
            replay_capacity=51_200,
            num_updates=24_000,
            epsilon_decay=0.9997,
        ),
        sizes=(5, 20, 100, 1000, 10_000),
        num_replications=5,
    ),
}


def make_split(study: LavaGridStudy) -> levels.Split:
    """The study's training, validation and test levels; the last are the validation's in tuning."""
    split = levels.split(
        study.env,
        study.sizes[-1],
        study.num_validation_levels,
        study.num_test_levels,
        study.level_seed,
    )
    return split._replace(test=split.validation) if study.tune else split
