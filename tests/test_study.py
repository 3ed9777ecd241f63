"""What the gridworld study's settings promise before anything is trained."""

import itertools
from dataclasses import replace

import jax
import numpy as np
import pytest

from hotoven import levels
from hotoven.studies.lavagrid import PRESETS, LavaGridStudy, agent_key, make_split

SMALL = LavaGridStudy(sizes=(2, 4), num_test_levels=6, num_validation_levels=5)


def test_the_presets_are_of_the_sizes_that_the_study_asks_for():
    quick, full = PRESETS["quick"], PRESETS["full"]
    assert quick.sizes == (10, 100, 1000)
    assert len(full.sizes) >= 5
    assert (full.sizes[0], full.sizes[-1]) == (5, 10_000)
    assert full.num_replications >= 5
    for study in (quick, full):
        assert (study.num_members, study.num_test_levels, study.tune) == (9, 1000, False)


def test_no_two_agents_have_one_key():
    agents = itertools.product(range(4), range(2), (5, 10), range(3))
    words = {
        np.asarray(jax.random.key_data(agent_key(SMALL, *agent))).tobytes() for agent in agents
    }
    assert len(words) == 4 * 2 * 2 * 3


def test_tuning_plays_the_validation_levels_and_never_sees_a_test_level():
    split, tuning = make_split(SMALL), make_split(replace(SMALL, tune=True))
    assert levels.set_hash(tuning.test) == levels.set_hash(split.validation)
    assert levels.set_hash(tuning.train) == levels.set_hash(split.train)
    assert not set(tuning.test.ids) & set(split.test.ids)
    np.testing.assert_array_equal(tuning.test.digests, split.validation.digests)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sizes": ()}, "sizes must be different, growing and at least 2, got []"),
        ({"sizes": (4, 2)}, "sizes must be different, growing and at least 2, got [4, 2]"),
        ({"num_members": 0}, "num_members must be at least 1, got 0"),
        (
            {"tune": True, "num_validation_levels": 0},
            "tune needs num_validation_levels of at least 1, got 0",
        ),
        ({"seed": 2**32}, "seed must be from 0 to 4294967295, got 4294967296"),
        ({"seed": -1}, "seed must be from 0 to 4294967295, got -1"),
        ({"num_members": 10**11}, "num_members must be at most 10000, got 100000000000"),
        ({"block_threshold": 1.5}, "block_threshold must be from 0 to 1, got 1.5"),
    ],
)
def test_an_impossible_setting_names_what_is_allowed(settings, message):
    with pytest.raises(ValueError) as error:
        replace(SMALL, **settings)
    assert str(error.value) == message
