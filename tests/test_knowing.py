"""Tables of what was known in time: they repeat what the statistics say of the recorded steps."""

import numpy as np
import pyarrow as pa
import pytest

from hotoven.evaluation import knowing
from hotoven.evaluation.prediction import auc, labels
from hotoven.evaluation.scores import Coefficients

MAX_STEPS = 12
SIZES = (10, 200)


def episodes(set: str, size: int, acting: str, seed: int, num_levels: int = 40, dies: float = 0.5):
    """Rows of steps.parquet: deaths are foretold by a low mu and, more so, by a high sigma."""
    generator = np.random.default_rng(seed)
    rows = []
    for level in range(num_levels):
        num_steps = int(generator.integers(3, MAX_STEPS + 1))
        died = generator.random() < dies
        for step in range(num_steps):
            near = died and num_steps - step <= 3
            row = {
                "set": set,
                "num_train_levels": size,
                "method": acting,
                "level_index": level,
                "step": step,
                "outcome": "running",
                "mu": np.float32(generator.normal(8 - near, 1)),
                "sigma": np.float32(generator.gamma(2) + 2 * near),
            }
            rows.append(
                row | {name: np.float32(generator.random()) for name in knowing.STEP_SCORES[2:]}
            )
        rows[-1]["outcome"] = "catastrophe" if died else "solved"
    return rows


def table(*rows: list) -> pa.Table:
    return pa.Table.from_pylist([row for some in rows for row in some])


STEPS = table(
    *(
        episodes(set, size, "mean", seed)
        for seed, (set, size) in enumerate(
            (set, size) for set in ("test", "calibration", "shifted") for size in SIZES
        )
    )
)
CHOSEN = [
    {"num_train_levels": size, "acting": "mean", "window": window, "alpha": -1.0, "beta": 2.0}
    for size in SIZES
    for window in (1, 3)
]


def recorded(size: int = 10) -> knowing.Recorded:
    return knowing.read_recorded(STEPS, "test", size, "mean", MAX_STEPS, knowing.STEP_SCORES)


def test_recorded_episodes_come_back_in_order_of_level_and_step():
    shuffled = STEPS.take(np.random.default_rng(0).permutation(STEPS.num_rows))
    again = knowing.read_recorded(shuffled, "test", 10, "mean", MAX_STEPS, ("mu",))
    found = recorded()
    assert again.num_steps.tolist() == found.num_steps.tolist()
    np.testing.assert_array_equal(again.columns["mu"], found.columns["mu"])
    assert found.valid.sum() == found.num_steps.sum()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1:], "must run from 0"),  # the first step is missing
        (lambda rows: rows[:-1], "must run from 0"),  # the last one is
        (lambda rows: [], "no step of 'mean'"),
    ],
)
def test_episodes_that_are_not_whole_are_refused(change, message):
    rows = change(episodes("test", 10, "mean", 0, num_levels=3))
    some = table(rows) if rows else STEPS.slice(0, 0)
    with pytest.raises(ValueError, match=message):
        knowing.read_recorded(some, "test", 10, "mean", MAX_STEPS, ("mu",))


def test_the_best_pair_is_found_whatever_the_scales():
    generator = np.random.default_rng(1)
    positive = generator.random(4000) < 0.3
    mu = 1000 * generator.normal(size=4000)
    sigma = 0.01 * (generator.normal(size=4000) + 2 * positive)  # all that tells is in sigma
    pair, area = knowing.best_coefficients(mu, sigma, positive)
    assert area == pytest.approx(auc(sigma, positive), abs=0.005)
    assert abs(pair.alpha) * 1000 < 0.3 * abs(pair.beta) * 0.01
    # where a high value is the danger, alpha is positive
    pair, area = knowing.best_coefficients(mu + 3000 * positive, 0 * sigma, positive)
    assert pair.alpha > 0 and area > 0.9


def test_without_a_catastrophe_there_is_no_best_pair():
    assert knowing.best_coefficients(np.arange(5.0), np.ones(5), np.zeros(5, bool)) is None


def test_the_table_of_predictions_holds_what_the_statistics_say():
    tables = knowing.predictions(STEPS, CHOSEN, SIZES, MAX_STEPS, ("mean",), (1, 3))
    rows = {
        (row["num_train_levels"], row["score"], row["window"]): row
        for row in tables["predictions"].to_pylist()
    }
    assert len(rows) == len(SIZES) * len(knowing.SCORES) * 2
    found = recorded()
    positive = labels(found.num_steps, found.died, MAX_STEPS, 3)[found.valid]
    mu, sigma = (found.columns[name][found.valid] for name in ("mu", "sigma"))
    for name, score in (("mean", -mu), ("std", sigma), ("best pair", -mu + 2 * sigma)):
        assert rows[10, name, 3]["auc"] == pytest.approx(auc(score, positive), abs=1e-6)
    row = rows[10, "mean", 3]
    assert row["num_positive"] == positive.sum()
    assert row["base_rate"] == pytest.approx(positive.mean())
    assert row["auc_low"] < row["auc"] < row["auc_high"]
    assert rows[10, "oracle", 1]["auc"] == 1.0
    assert rows[10, "random", 3]["auc"] == pytest.approx(0.5, abs=0.15)


def test_comparisons_are_differences_of_the_areas_in_the_table():
    tables = knowing.predictions(STEPS, CHOSEN, SIZES, MAX_STEPS, ("mean",), (1, 3))
    area = {
        (row["num_train_levels"], row["score"], row["window"]): row["auc"]
        for row in tables["predictions"].to_pylist()
    }
    gain = lambda size, window: area[size, "mean and std", window] - area[size, "mean", window]  # noqa: E731
    expected = {
        ("gain", 10, 3): gain(10, 3),
        ("window", 10, 1): area[10, "mean and std", 1] - area[10, "mean and std", 3],
        ("gain by window", 10, 1): gain(10, 1) - gain(10, 3),
        ("gain by size", 10, 1): gain(10, 1) - gain(200, 1),
    }
    found = {
        (row["comparison"], row["num_train_levels"], row["window"]): row
        for row in tables["comparisons"].to_pylist()
        if row["score"] == "mean and std"
    }
    for key, value in expected.items():
        assert found[key]["difference"] == pytest.approx(value, abs=1e-9), key
        assert found[key]["low"] <= value <= found[key]["high"]


def test_where_nobody_died_there_is_no_row_rather_than_a_half():
    safe = table(episodes("test", 10, "mean", 0, dies=0.0))
    tables = knowing.predictions(safe, [], (10,), MAX_STEPS, ("mean",), (1,))
    assert [found.num_rows for found in tables.values()] == [0, 0, 0]


def test_alarms_go_from_all_to_none_of_the_episodes():
    rows = knowing.alarm_rows(STEPS, CHOSEN, (10,), MAX_STEPS, ("mean",), 3, 0).to_pylist()
    of_mean = [row for row in rows if row["score"] == "mean"]
    found = recorded()
    assert of_mean[0]["num_announced"] == found.died.sum()
    assert of_mean[0]["num_false"] == (~found.died).sum()
    assert of_mean[-1]["num_alarms"] == 0
    assert of_mean[-1]["announced_per_100"] is None  # a share of no alarm


def test_promises_are_measured_on_levels_that_the_threshold_was_not_chosen_on():
    rows = knowing.promise_rows(
        STEPS, CHOSEN, (10,), MAX_STEPS, "mean", 3, 0, (0.2, 0.5), 0.1
    ).to_pylist()
    assert {row["set"] for row in rows} == {"test", "shifted"}
    assert {row["rule"] for row in rows} == {"conformal", "tested"}
    found = recorded()
    for row in rows:
        if row["set"] == "test" and row["score"] == "mean":
            peak = np.where(found.valid, -found.columns["mu"], -np.inf).max(axis=1)[found.died]
            assert row["share"] == pytest.approx((peak <= row["threshold"]).mean())
            assert row["num_catastrophes"] == found.died.sum()
    tested = [row for row in rows if row["rule"] == "tested" and row["score"] == "mean"]
    conformal = [row for row in rows if row["rule"] == "conformal" and row["score"] == "mean"]
    assert all(a["threshold"] <= b["threshold"] for a, b in zip(tested, conformal, strict=True))


def test_a_false_alarm_is_an_alarm_in_an_episode_without_a_catastrophe():
    def steps(set: str, *episodes: tuple[str, list[float]]) -> list[dict]:
        """Episodes by outcome and the danger, minus mu, of each of their steps."""
        scores = dict.fromkeys(knowing.STEP_SCORES, np.float32(0))
        where = {"set": set, "num_train_levels": 10, "method": "mean"}
        return [
            where
            | {"level_index": level, "step": step, "mu": np.float32(-danger)}
            | {"outcome": outcome if step == len(dangers) - 1 else "running"}
            | {name: zero for name, zero in scores.items() if name != "mu"}
            for level, (outcome, dangers) in enumerate(episodes)
            for step, danger in enumerate(dangers)
        ]

    deaths = [("catastrophe", [float(peak)]) for peak in range(1, 10)]
    late = ("timeout", [0.0] * MAX_STEPS)
    rows = knowing.promise_rows(
        table(
            steps("calibration", *deaths),
            # 5 in its first step, 3, 2 and 0; of the deaths one is above 2 and does not count
            steps("test", ("solved", [5, 0]), ("solved", [3]), ("solved", [2]), late, *deaths[1:3]),
            steps("shifted", *deaths[:1]),
        ),
        [], (10,), MAX_STEPS, "mean", 1, 0, (0.3,), 0.1,
    ).to_pylist()  # fmt: skip
    found = {
        row["set"]: row for row in rows if (row["score"], row["rule"]) == ("mean", "conformal")
    }
    # two of nine may come unannounced: (2 + 1) / (9 + 1)
    assert 2 <= found["test"]["threshold"] < 3
    assert found["test"]["share"] == 0.5
    assert found["test"]["false_alarm_share"] == 0.5
    assert found["shifted"]["false_alarm_share"] is None  # there every episode died


def test_thresholds_of_promises_are_chosen_on_calibration_levels_alone():
    def thresholds(**seeds: int) -> dict[tuple, tuple]:
        sets = ("test", "calibration", "shifted")
        steps = table(*(episodes(set, 10, "mean", seeds.get(set, 0)) for set in sets))
        rows = knowing.promise_rows(
            steps, CHOSEN, (10,), MAX_STEPS, "mean", 3, 0, (0.2, 0.5), 0.1
        ).to_pylist()
        return {
            (row["score"], row["rule"], row["promised"], row["set"]): (
                row["threshold"],
                row["num_calibration"],
            )
            for row in rows
        }

    found = thresholds()
    assert len(found) == len(knowing.DRAWN) * 2 * 2 * 2
    assert thresholds(test=1, shifted=2) == found
    other = thresholds(calibration=1)
    assert all(other[key][0] != threshold for key, (threshold, _) in found.items())


def test_coefficients_are_those_of_the_size_the_acting_and_the_window():
    assert knowing.coefficients_of(CHOSEN, 10, "mean", 3) == Coefficients(-1.0, 2.0)
    assert knowing.coefficients_of(CHOSEN, 10, "mean", 25) is None


def helped(threshold: float, outcomes: str, requests: list[int]) -> list[dict]:
    """Episodes with a helper: c died, s solved, t timed out; ten steps, five per request."""
    names = {"c": "catastrophe", "s": "solved", "t": "timeout"}
    return [
        {
            "num_train_levels": 10,
            "helper": "planner",
            "threshold": threshold,
            "level_index": level,
            "outcome": names[letter],
            "length": 10,
            "num_requests": asked,
            "num_helped": 5 * asked,
        }
        for level, (letter, asked) in enumerate(zip(outcomes, requests, strict=True))
    ]


def test_help_is_compared_with_the_same_levels_played_alone():
    rows = knowing.help_rates(
        table(helped(np.inf, "ccst", [0] * 4), helped(1.0, "scst", [1, 1, 0, 2])[::-1])
    ).to_pylist()
    asked, alone = sorted(rows, key=lambda row: row["threshold"])
    assert (alone["catastrophe_rate"], alone["avoided"]) == (0.5, 0.0)
    assert (asked["catastrophe_rate"], asked["avoided"], asked["solved_rate"]) == (0.25, 0.25, 0.5)
    assert asked["requests_per_episode"] == 1.0
    assert asked["helped_share"] == 0.5
    assert asked["avoided_low"] < 0.25 < asked["avoided_high"]


@pytest.mark.parametrize("others", [[], helped(np.inf, "cc", [0, 0])])
def test_help_without_the_same_episodes_alone_is_refused(others):
    with pytest.raises(ValueError, match="same levels at every threshold"):
        knowing.help_rates(table(helped(1.0, "scst", [1, 1, 0, 2]), others))


def test_a_score_that_nothing_could_be_learned_for_is_none():
    place = STEPS.column_names.index("head")
    absent = STEPS.set_column(place, "head", pa.nulls(STEPS.num_rows, pa.float32()))
    again = knowing.read_recorded(absent, "test", 10, "mean", MAX_STEPS, knowing.STEP_SCORES)
    assert knowing.score_of("head", again, None) is None
    assert knowing.score_of("head", recorded(), None) is not None
    rows = knowing.predictions(absent, CHOSEN, SIZES, MAX_STEPS, ["mean"], [1])["predictions"]
    assert "head" not in rows["score"].to_pylist() and "blocker" in rows["score"].to_pylist()
