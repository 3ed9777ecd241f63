"""Recorded episodes played again: frames, samples, films and their files."""

import io
import subprocess

import imageio_ffmpeg
import jax
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageSequence

from hotoven.envs.lavagrid import PALETTE, LavaGrid
from hotoven.envs.lavagrid_levels import from_ascii
from hotoven.report.animate import (
    ALARM,
    BORDER,
    LINE,
    MARGIN,
    MARKS,
    Episode,
    Sample,
    _in_long_runs,
    episode_frames,
    episodes_of,
    film,
    level_of,
    pick_episodes,
    play,
    write_gif,
    write_mp4,
)
from hotoven.types import CATASTROPHE, LevelSet

UP, RIGHT, DOWN, LEFT = range(4)
ENV = LavaGrid(height=2, width=3, min_distance=1, wall_density=0, lava_density=0, max_steps=4)
MAPS = ("S.L\n..G", "L..\nS.G", "S..\n..G")


def level_set() -> LevelSet:
    """The three maps as a set with the ids 100, 101 and 102."""
    levels = [from_ascii(text) for text in MAPS]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *levels)
    count = len(levels)
    ids, digests = np.arange(100, 100 + count), np.zeros((count, 16), np.uint8)
    return LevelSet(stacked, ids, digests, {}, "lavagrid", 1)


def episode(level_index: int, actions: list[int], outcome: str) -> Episode:
    return Episode(
        "test", 10, 0, "mean", -1, level_index, 100 + level_index, np.array(actions), outcome
    )


FATAL = episode(0, [RIGHT, RIGHT], "catastrophe")
SOLVED = episode(1, [RIGHT, RIGHT], "solved")
LOST = episode(2, [RIGHT, LEFT, RIGHT, LEFT], "timeout")


def table(episodes: list[Episode]) -> pa.Table:
    """The steps of those episodes, as evaluation writes them."""
    rows = [
        one._asdict()
        | {
            "step": step,
            "action": int(action),
            "outcome": one.outcome if step == len(one.actions) - 1 else "running",
        }
        for one in episodes
        for step, action in enumerate(one.actions)
    ]
    for row in rows:
        del row["actions"]
    return pa.Table.from_pylist(rows)


def has_colour(picture: np.ndarray, name: str) -> bool:
    return bool((picture == PALETTE[name]).all(axis=-1).any())


def test_an_episode_has_one_frame_more_than_it_has_actions():
    assert episode_frames(ENV, from_ascii(MAPS[0]), [DOWN, UP, DOWN], 8).shape == (4, 16, 24, 3)


def test_the_last_frame_of_a_fatal_episode_shows_the_agent_crossed_out_in_the_lava():
    frames = episode_frames(ENV, from_ascii(MAPS[0]), FATAL.actions, 16)
    assert not has_colour(frames[-2], "fatal")
    top_right = frames[-1, :16, 32:]
    assert has_colour(top_right, "fatal") and has_colour(top_right, "agent")


def test_played_again_a_recorded_death_is_a_catastrophe():
    *_, (_, shown) = play(ENV, from_ascii(MAPS[0]), FATAL.actions)
    assert shown.outcome == CATASTROPHE


def test_episodes_read_back_from_shuffled_steps_are_those_recorded():
    steps = table([SOLVED, FATAL, LOST])
    order = np.random.default_rng(0).permutation(steps.num_rows)
    found = episodes_of(steps.take(order), "mean", 10)
    assert [one.outcome for one in found] == ["catastrophe", "solved", "timeout"]
    assert [one.actions.tolist() for one in found] == [[1, 1], [1, 1], [1, 3, 1, 3]]


def test_another_method_has_no_episodes():
    assert episodes_of(table([FATAL]), "vote", 10) == []


def test_an_episode_that_lacks_a_step_is_refused():
    steps = table([LOST])
    with pytest.raises(ValueError, match="must run from 0 to the end"):
        episodes_of(steps.slice(1), "mean", 10)
    with pytest.raises(ValueError, match="end 'running'"):
        episodes_of(steps.slice(0, 3), "mean", 10)


def test_a_sample_holds_every_ending_and_says_how_it_was_picked():
    episodes = [SOLVED] * 9 + [LOST, FATAL, FATAL]
    sample = pick_episodes(episodes, 4)
    assert [one.outcome for one in sample.episodes] == [
        "solved",
        "solved",
        "timeout",
        "catastrophe",
    ]
    assert "4 of 12 recorded episodes: the first 2, and 2 added" in sample.caption
    assert "Of all 12: 9 solved, 2 in catastrophe, 1 timed out." in sample.caption


def test_a_sample_that_shows_every_ending_by_itself_is_the_first_episodes():
    sample = pick_episodes([LOST, FATAL, SOLVED, SOLVED, SOLVED], 4)
    assert sample.episodes == [LOST, FATAL, SOLVED, SOLVED]
    assert "the first 4." in sample.caption


def test_a_sample_too_small_for_every_ending_is_refused():
    with pytest.raises(ValueError, match="at least 3"):
        pick_episodes([SOLVED], 2)


def test_every_episode_of_a_film_ends_on_its_last_frame_in_the_colour_of_its_ending():
    sample = Sample([FATAL, SOLVED, LOST], "three")
    frames = film(ENV, level_set(), sample, columns=3, scale=16, num_held=2)
    assert len(frames) == 4 + 1 + 2
    colours = [MARKS[name][1] for name in ("catastrophe", "solved", "timeout")]
    shown = [[bool((frame == colour).all(-1).any()) for colour in colours] for frame in frames]
    assert shown[:2] == [[False] * 3] * 2
    assert shown[2:4] == [[True, True, False]] * 2
    assert shown[4:] == [[True] * 3] * 3
    fatal = episode_frames(ENV, from_ascii(MAPS[0]), FATAL.actions, 16)[-1]
    row, col = np.argwhere((frames[-1] == colours[0]).all(-1))[0] + BORDER
    assert (frames[-1][row : row + 32, col : col + 48] == fatal).all()


def shows(frame: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((frame == colour).all(axis=-1).any())


def test_an_alarm_is_shown_before_the_action_that_it_comes_before():
    alarm = np.array([False, True])
    frames = film(ENV, level_set(), Sample([FATAL], "one"), scale=16, num_held=0, alarms=[alarm])
    assert [shows(frame, ALARM[1]) for frame in frames] == [False, True, False]
    death = MARKS["catastrophe"][1]
    assert [shows(frame, death) for frame in frames] == [False, False, True]


def test_alarms_of_other_episodes_are_refused():
    with pytest.raises(ValueError, match="one for each action"):
        film(ENV, level_set(), Sample([FATAL], ""), alarms=[np.zeros(3, bool)])


def test_a_long_episode_is_cut_and_says_how_it_ended():
    whole = film(ENV, level_set(), Sample([LOST], "one"), scale=16, num_held=0)
    cut = film(ENV, level_set(), Sample([LOST], "one"), scale=16, num_held=0, max_steps=2)
    assert (len(whole), len(cut)) == (5, 3)
    assert (whole[:2] == cut[:2]).all()
    late = MARKS["timeout"][1]
    assert [shows(frame, late) for frame in cut] == [False, False, True]
    # the pictures of steps 2 and 4 are alike, so what differs below the header is the words
    below = slice(MARGIN + 2 * LINE, None)
    assert (whole[4][below] != cut[2][below]).any()
    assert (whole[4][below][:40] == cut[2][below][:40]).all()


def test_an_episode_that_is_cut_still_shows_its_fatal_frame():
    sample = Sample([FATAL], "one")
    start, end = film(ENV, level_set(), sample, scale=16, num_held=0, max_steps=1)
    assert has_colour(end, "fatal") and not has_colour(start, "fatal")


def test_an_episode_as_long_as_the_film_is_not_cut():
    whole = film(ENV, level_set(), Sample([LOST], "one"), scale=16)
    assert (film(ENV, level_set(), Sample([LOST], "one"), scale=16, max_steps=4) == whole).all()


def test_a_film_of_another_level_than_the_recorded_one_is_refused():
    stranger = SOLVED._replace(level_id=7)
    with pytest.raises(ValueError, match="must have id 7, got 101"):
        film(ENV, level_set(), Sample([stranger], ""))


def test_an_episode_that_ends_otherwise_than_recorded_is_refused():
    with pytest.raises(ValueError, match="is recorded as solved, played again it ends as cat"):
        film(ENV, level_set(), Sample([FATAL._replace(outcome="solved")], ""))


def test_a_film_of_two_methods_is_refused():
    with pytest.raises(ValueError, match="one method"):
        film(ENV, level_set(), Sample([FATAL, SOLVED._replace(method="vote")], ""))


def test_a_level_beyond_the_set_is_refused():
    with pytest.raises(ValueError, match="got none"):
        level_of(level_set(), 3, 103)


def test_a_gif_has_every_frame_of_a_film_and_holds_the_last_one(tmp_path):
    frames = film(ENV, level_set(), Sample([LOST], "one"), scale=16, num_held=5)
    path = tmp_path / "film.gif"
    write_gif(path, frames, seconds_per_frame=0.1)
    with Image.open(io.BytesIO(path.read_bytes())) as gif:
        assert gif.n_frames == len(LOST.actions) + 1
        for number in range(gif.n_frames):
            gif.seek(number)
            difference = abs(np.asarray(gif.convert("RGB")).astype(int) - frames[number])
            assert difference.max() < 16 and (difference == 0).mean() > 0.98
        assert gif.info["duration"] == 600  # its own tenth of a second and five more
    assert [file.name for file in tmp_path.iterdir()] == ["film.gif"]


def test_a_gif_of_few_colours_keeps_them_exactly(tmp_path):
    frames = episode_frames(ENV, from_ascii(MAPS[0]), FATAL.actions, 16)
    path = tmp_path / "episode.gif"
    write_gif(path, frames)
    with Image.open(path) as gif:
        assert gif.n_frames == len(FATAL.actions) + 1
        for number in range(gif.n_frames):
            gif.seek(number)
            assert (np.asarray(gif.convert("RGB")) == frames[number]).all()


def test_a_gif_holds_what_changes_and_no_more(tmp_path):
    noise = np.random.default_rng(0).integers(0, 2, (120, 160, 1), np.uint8)
    frames = np.repeat(noise * np.uint8([200, 100, 50]), 12, axis=0).reshape(120, 12, 160, 3)
    frames = frames.swapaxes(0, 1).copy()
    for number, frame in enumerate(frames):
        frame[number], frame[-1 - number] = 255, 40  # rows far apart, each in one frame alone
    sizes = []
    for number in (1, 2, len(frames)):
        path = tmp_path / f"{number}.gif"
        write_gif(path, frames[:number])
        sizes.append(path.stat().st_size)
        with Image.open(path) as gif:
            assert gif.n_frames == number
            for place in range(number):
                gif.seek(place)
                assert (np.asarray(gif.convert("RGB")) == frames[place]).all()
    first, second, last = sizes
    assert second - first < first / 4 and last - first < 2 * first


@pytest.mark.parametrize("number", [1, 2, 254, 255])
def test_a_gif_of_up_to_255_colours_keeps_them_exactly_and_loops(number, tmp_path):
    rng = np.random.default_rng(number)
    colours = np.stack(np.unravel_index(rng.permutation(2**12)[:number] * 4096, (256,) * 3), -1)
    colours[0] = 0  # black is what an empty entry of the palette holds
    shown = rng.integers(0, number, (5, 40, 60))
    shown.reshape(5, -1)[:, :number] = np.arange(number)
    shown[3] = shown[2]
    frames = colours.astype(np.uint8)[shown]
    path = tmp_path / "colours.gif"
    write_gif(path, frames, seconds_per_frame=0.1)
    with Image.open(path) as gif:
        assert gif.n_frames == (1 if number == 1 else 4)
        if number > 1:
            assert gif.info["loop"] == 0
        decoded = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(gif)]
    assert (np.stack(decoded) == frames[[0] if number == 1 else [0, 1, 2, 4]]).all()


def test_of_too_many_colours_the_commonest_are_exact_over_the_whole_film(tmp_path):
    colours = np.random.default_rng(0).permutation(2**24)[:500]
    colours = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], -1).astype(np.uint8)
    frames = np.full((12, 30, 40, 3), 255, np.uint8)
    frames[0] = np.repeat(colours[:400], 3, axis=0).reshape(30, 40, 3)
    frames[1:].reshape(11, 1200, 3)[:, :100] = colours[400:]  # each once, but held
    path = tmp_path / "many.gif"
    write_gif(path, frames)
    with Image.open(path) as gif:
        gif.seek(1)
        assert (np.asarray(gif.convert("RGB")) == frames[1]).all()


def test_only_long_runs_are_left_out():
    rows = ["................................", "#" * 16 + "." * 16, "." * 17 + "#" * 15]
    rows += ["." + "#" * 16 + "." + "#" * 14, "#" * 32, "#." * 16]
    mask = np.array([[letter == "#" for letter in row] for row in rows]).reshape(2, 3, 32)
    expected = mask.copy()
    expected[0, 2] = False
    expected[1, 0, 18:] = False
    expected[1, 2] = False
    assert (_in_long_runs(mask) == expected).all()
    assert _in_long_runs(mask[:0]).shape == (0, 3, 32)


def test_a_gif_of_more_colours_than_its_palette_stays_close(tmp_path):
    ramp = np.arange(64, dtype=np.uint8) * 4
    picture = np.stack([*np.meshgrid(ramp, ramp), np.zeros((64, 64), np.uint8)], axis=-1)
    path = tmp_path / "ramp.gif"
    write_gif(path, np.stack([picture, picture[::-1]]))
    with Image.open(path) as gif:
        shown = np.asarray(gif.convert("RGB")).astype(int)
    assert abs(shown - picture).mean() < 8


def test_a_film_of_odd_size_becomes_an_mp4_of_even_size(tmp_path):
    frames = episode_frames(ENV, from_ascii(MAPS[0]), FATAL.actions, 31)[:, :61]
    path = tmp_path / "film.mp4"
    write_mp4(path, frames, fps=5)
    read = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path)]
    ended = subprocess.run(
        [*read, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True
    )
    assert b"h264" in ended.stderr and b"yuv420p" in ended.stderr and b"94x62" in ended.stderr
    shown = np.frombuffer(ended.stdout, np.uint8).reshape(3, 62, 94, 3)
    assert abs(shown[:, :61, :93].astype(int) - frames).mean() < 8
    assert [file.name for file in tmp_path.iterdir()] == ["film.mp4"]
