"""Recorded episodes, played again from the steps table and shown as moving pictures.

The rules are deterministic, so a level and the actions taken in it are the whole episode. Nothing
here decides anything: agents are not needed, and figures that stand still are in `figures.py`.
"""

import io
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import imageio_ffmpeg
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageDraw, ImageFont

from hotoven.storage import write_bytes
from hotoven.types import OUTCOMES, Env, LevelSet, PyTree, TimeStep

Colour = tuple[int, int, int]

# How an ending is marked: the word under the picture and the colour of its border (Okabe & Ito).
MARKS: Final[dict[str, tuple[str, Colour]]] = {
    "solved": ("solved", (0, 158, 115)),
    "catastrophe": ("catastrophe", (213, 94, 0)),
    "timeout": ("time-out", (0, 114, 178)),
}
ALARM: Final[tuple[str, Colour]] = ("alarm", (230, 159, 0))  # while there is one
METHODS: Final = {
    "single": "one agent",
    "mean": "ensemble mean",
    "vote": "majority vote",
    "mc_dropout": "MC dropout",
    "random_step": "random member each step",
    "random_hold": "random member, held",
    "random_episode": "random member each episode",
    "mean_logits": "mean of logits",
    "mean_hysteresis": "mean with hysteresis",
}
INK: Final = (30, 30, 34)
PALE: Final = (212, 212, 212)  # the border while an episode runs
PAPER: Final = (255, 255, 255)
MARGIN, BORDER, GAP, LINE = 14, 5, 12, 22  # pixels; LINE is the height of a line of text
CAPTION_SIZE: Final = 13  # pixels
MIN_WIDTH: Final = 480  # pixels, so that the header fits
PALETTE_SIZE: Final = 255  # one of a GIF's 256 entries is left for pixels that stay as they are
UNCHANGED: Final = np.uint8(PALETTE_SIZE)  # that entry
SHORTEST: Final = 16  # of such pixels in a row; fewer cost more room than they save
NUM_EXACT: Final = 160  # the commonest colours, kept exactly where there are too many


class Episode(NamedTuple):
    """One recorded episode, as the steps table holds it."""

    set: str  # "train" or "test"
    num_train_levels: int
    replication: int
    method: str
    member: int  # -1 where the table has none
    level_index: int  # place in the level set
    level_id: int
    actions: np.ndarray  # int64[T]
    outcome: str  # "solved", "catastrophe" or "timeout"


class Sample(NamedTuple):
    """Some of many episodes, and a sentence that says how they were picked."""

    episodes: list[Episode]
    caption: str


def method_name(method: str) -> str:
    """A method's name for people: "mean+blocker" is "ensemble mean + blocker"."""
    base, plus, wrapper = method.partition("+")
    return METHODS.get(base, base.replace("_", " ")) + (f" + {wrapper}" if plus else "")


def episodes_of(
    steps: pa.Table, method: str, num_train_levels: int, set: str = "test"
) -> list[Episode]:
    """The episodes of one method, ordered by replication, member and level.

    Raises:
      ValueError: an episode lacks a step, or its last step is not its end.
    """
    rows = steps.filter(
        (pc.field("method") == method)
        & (pc.field("num_train_levels") == num_train_levels)
        & (pc.field("set") == set)
    )
    keys = ("replication", "member", "level_index")
    rows = rows.select([*keys, "step", "level_id", "action", "outcome"])
    place = rows.schema.get_field_index("member")
    rows = rows.set_column(place, "member", pc.fill_null(rows["member"].cast(pa.int64()), -1))
    rows = rows.sort_by([(name, "ascending") for name in (*keys, "step")])
    columns = {name: rows[name].to_numpy() for name in rows.column_names}
    owner = np.stack([columns[name] for name in keys], axis=1)  # [rows, 3]
    firsts = np.flatnonzero((np.diff(owner, axis=0) != 0).any(axis=1)) + 1
    episodes = []
    for rows_of_one in np.split(np.arange(len(owner)), firsts):
        if not len(rows_of_one):
            continue
        one = {name: column[rows_of_one] for name, column in columns.items()}
        outcome = str(one["outcome"][-1])
        whole = (one["step"] == np.arange(len(rows_of_one))).all() and outcome in MARKS
        replication, member, level_index = (int(one[name][0]) for name in keys)
        if not whole:
            raise ValueError(
                f"the steps of {method} trained on {num_train_levels} levels, replication "
                f"{replication}, {set} level {level_index} must run from 0 to the end, got steps "
                f"{one['step'].tolist()} that end {outcome!r}"
            )
        episodes.append(
            Episode(
                set,
                num_train_levels,
                replication,
                method,
                member,
                level_index,
                int(one["level_id"][0]),
                one["action"].astype(np.int64),
                outcome,
            )
        )
    return episodes


def pick_episodes(episodes: Sequence[Episode], count: int = 8) -> Sample:
    """The first `count` episodes, the last of them swapped so that every ending is shown.

    Raises:
      ValueError: there is no episode, or `count` is too small to show every ending.
    """
    if count < len(MARKS):
        raise ValueError(f"a sample must be of at least {len(MARKS)} episodes, got {count}")
    if not episodes:
        raise ValueError("there is no episode to pick from")
    chosen = list(range(min(count, len(episodes))))
    num_swapped = 0
    for outcome in MARKS:
        shown = Counter(episodes[index].outcome for index in chosen)
        having = [index for index, one in enumerate(episodes) if one.outcome == outcome]
        if having and not shown[outcome]:
            spare = [index for index in chosen if shown[episodes[index].outcome] > 1]
            chosen[chosen.index(spare[-1])] = having[0]
            num_swapped += 1
    tally = Counter(episode.outcome for episode in episodes)
    counts = (
        f"{tally['solved']} solved, {tally['catastrophe']} in catastrophe, "
        f"{tally['timeout']} timed out"
    )
    how = f"the first {len(chosen) - num_swapped}"
    if num_swapped:
        how += f", and {num_swapped} added so that every ending that occurs is shown"
    number = len(episodes)
    caption = f"{len(chosen)} of {number} recorded episodes: {how}. Of all {number}: {counts}."
    return Sample([episodes[index] for index in sorted(chosen)], caption)


def level_of(level_set: LevelSet, index: int, level_id: int) -> PyTree:
    """The level at `index`, without the leading axis, proved to be `level_id`.

    Raises:
      ValueError: the set has no such place, or another level stands there.
    """
    if not 0 <= index < len(level_set) or level_set.ids[index] != level_id:
        found = level_set.ids[index] if 0 <= index < len(level_set) else "none"
        raise ValueError(f"level {index} of the set must have id {level_id}, got {found}")
    return jax.tree.map(lambda leaf: leaf[index], level_set.levels)


def play(
    env: Env, level: PyTree, actions: Sequence[int] | np.ndarray
) -> Iterator[tuple[PyTree, TimeStep]]:
    """State and time step at the start and after every action: T + 1 pairs."""
    state, shown = _reset(env, level)
    yield state, shown
    for action in actions:
        state, shown = _step(env, state, jnp.int32(action))
        yield state, shown


def episode_frames(
    env: Env, level: PyTree, actions: Sequence[int] | np.ndarray, scale: int = 24
) -> np.ndarray:
    """uint8[T+1, h, w, 3]: the start and what every action led to, the fatal frame included."""
    return np.stack([_draw(env, scale, state) for state, _ in play(env, level, actions)])


def film(
    env: Env,
    level_set: LevelSet,
    sample: Sample,
    columns: int = 4,
    scale: int = 24,
    num_held: int = 8,
    alarms: Sequence[np.ndarray] | None = None,
    max_steps: int | None = None,
) -> np.ndarray:
    """uint8[F, height, width, 3]: the sample's episodes side by side, one step a frame.

    An episode that has ended keeps its last frame, in a coloured border and with a word below. The
    last frame is repeated `num_held` times. The header names the method, the number of training
    levels and the step; the sample's caption stands at the foot.

    Args:
      alarms: bool[T] for each episode: before which actions there is an alarm. It is shown as an
        ending is.
      max_steps: an episode of more steps is cut: its last frame stands in that step's place, and
        the word below says how the episode ended, and when.

    Raises:
      ValueError: the sample mixes methods or sets, a level is not the one recorded, or an episode
        ends otherwise than recorded: the table, the levels and the rules do not belong together;
        or alarms are not of the sample's episodes.
    """
    if alarms is None:
        alarms = [np.zeros(len(one.actions), bool) for one in sample.episodes]
    if [len(alarm) for alarm in alarms] != [len(one.actions) for one in sample.episodes]:
        raise ValueError("alarms must be of the sample's episodes, one for each action")
    kinds = {(one.method, one.num_train_levels, one.set) for one in sample.episodes}
    if len(kinds) != 1:
        raise ValueError(f"a film needs episodes of one method, size and set, got {sorted(kinds)}")
    movies = [_checked_frames(env, level_set, one, scale, max_steps) for one in sample.episodes]
    page = _Page.fitting(movies[0].shape[1:3], len(movies), columns, sample.caption)
    background = _background(page, _header(sample.episodes[0]))
    num_steps = max(len(movie) for movie in movies) - 1
    frames = []
    for step in range(num_steps + 1):
        image = background.copy()
        _write_step(image, page, step)
        shown = zip(movies, sample.episodes, alarms, strict=True)
        for place, (movie, episode, alarm) in enumerate(shown):
            last = len(movie) - 1
            _lay(image, page, place, movie[min(step, last)], *_mark(episode, alarm, step, last))
        frames.append(np.asarray(image))
    return np.stack(frames + [frames[-1]] * num_held)


def write_gif(path: Path, frames: np.ndarray, seconds_per_frame: float = 0.2) -> None:
    """Writes uint8[F, h, w, 3] as a GIF that loops, all frames with one palette.

    Up to 255 colours are kept exactly; of more, the commonest are. Equal frames in a row become
    one frame shown for longer. Of each frame but the first the pixels that are as in the frame
    before, many in a row, are left out, which takes less room.
    """
    differ = (frames[1:] != frames[:-1]).any(axis=(1, 2, 3))
    starts = np.flatnonzero(np.concatenate([[True], differ]))
    shown = np.diff(starts, append=len(frames))  # frames, each as long as the next one differs
    indices, colours = _with_palette(frames)
    indices = indices[starts]
    same = _in_long_runs(indices[1:] == indices[:-1])
    changes = np.where(same, UNCHANGED, indices[1:])
    palette = colours + [0] * (3 * 256 - len(colours))
    images = [Image.fromarray(index) for index in (indices[0], *changes)]
    for image in images:
        image.putpalette(palette)
    file = io.BytesIO()
    images[0].save(
        file,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=[round(1000 * seconds_per_frame * number) for number in shown],
        loop=0,
        palette=bytes(palette),  # once for all frames
        transparency=int(UNCHANGED),
        disposal=1,  # a frame stays under the next one
    )
    write_bytes(path, file.getvalue())


def write_mp4(path: Path, frames: np.ndarray, fps: float = 5.0) -> None:
    """Writes uint8[F, h, w, 3] as H.264 in yuv420p; an odd height or width grows by one pixel.

    Raises:
      RuntimeError: the encoder failed; the message is its own.
    """
    _, height, width, _ = frames.shape
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-r", str(fps)]
    source += ["-s", f"{even.shape[2]}x{even.shape[1]}", "-i", "-"]
    codec = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "18", "-threads", "1"]
    plain = ["-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact"]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "film.mp4"  # the encoder seeks, so it cannot write to a pipe
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", *source, *codec, *plain]
        ended = subprocess.run(
            [*command, "-movflags", "+faststart", str(target)],
            input=even.tobytes(),
            capture_output=True,
            check=False,
        )
        if ended.returncode:
            raise RuntimeError(f"cannot encode {path}: {ended.stderr.decode().strip()}")
        write_bytes(path, target.read_bytes())


@partial(jax.jit, static_argnums=0)
def _reset(env: Env, level: PyTree) -> tuple[PyTree, TimeStep]:
    return env.reset(level)


@partial(jax.jit, static_argnums=0)
def _step(env: Env, state: PyTree, action: jax.Array) -> tuple[PyTree, TimeStep]:
    return env.step(state, action)


@partial(jax.jit, static_argnums=(0, 1))
def _render(env: Env, scale: int, state: PyTree) -> jax.Array:
    return env.render(state, scale)


def _draw(env: Env, scale: int, state: PyTree) -> np.ndarray:
    """uint8[h, w, 3]: the picture of one state."""
    return np.asarray(_render(env, scale, state))


def _checked_frames(
    env: Env, level_set: LevelSet, episode: Episode, scale: int, max_steps: int | None = None
) -> np.ndarray:
    """The frames of an episode that is proved to be the recorded one; at most max_steps + 1."""
    level = level_of(level_set, episode.level_index, episode.level_id)
    played = list(play(env, level, episode.actions))
    outcome = OUTCOMES[int(played[-1][1].outcome)]
    if outcome != episode.outcome:
        raise ValueError(
            f"{episode.method} on level {episode.level_id} is recorded as {episode.outcome}, "
            f"played again it ends as {outcome}: the recording is of other rules or levels"
        )
    if max_steps is not None and len(played) > max_steps + 1:
        played = [*played[:max_steps], played[-1]]
    return np.stack([_draw(env, scale, state) for state, _ in played])


def _mark(episode: Episode, alarm: np.ndarray, step: int, last: int) -> tuple[str, Colour]:
    """The word under a picture and the colour of its border; `last` is the step it is shown to."""
    if step < last:
        return ALARM if alarm[step] else ("", PALE)
    word, colour = MARKS[episode.outcome]
    num_steps = len(episode.actions)
    return (f"{word}, step {num_steps}" if last < num_steps else word), colour


def _header(episode: Episode) -> str:
    number, where = episode.num_train_levels, "levels never seen before"
    if episode.set == "train":
        where = "its training levels"
    levels = "level" if number == 1 else "levels"
    return f"{method_name(episode.method)}, trained on {number} {levels}, in {where}"


class _Page(NamedTuple):
    """Where things stand in a frame, in pixels."""

    width: int
    height: int
    left: int  # of the first column
    columns: int
    tile: tuple[int, int]  # (height, width) of a picture without its border
    caption_top: int
    caption: list[str]  # its lines

    @classmethod
    def fitting(cls, tile: tuple[int, int], count: int, columns: int, caption: str) -> "_Page":
        """The page that holds `count` tiles with a header and a caption."""
        columns = min(columns, count)
        rows = -(-count // columns)
        grid = columns * (tile[1] + 2 * BORDER) + (columns - 1) * GAP
        width = max(grid + 2 * MARGIN, MIN_WIDTH)
        lines = _wrap(caption, width - 2 * MARGIN)
        top = MARGIN + 2 * LINE
        caption_top = top + rows * (tile[0] + 2 * BORDER + LINE + GAP // 2)
        height = caption_top + len(lines) * LINE + MARGIN // 2
        return cls(width, height, (width - grid) // 2, columns, tile, caption_top, lines)

    def corner(self, place: int) -> tuple[int, int]:
        """(row, col) of the pixel where the tile at `place` begins, border included."""
        row, col = divmod(place, self.columns)
        height, width = self.tile
        return (
            MARGIN + 2 * LINE + row * (height + 2 * BORDER + LINE + GAP // 2),
            self.left + col * (width + 2 * BORDER + GAP),
        )


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _wrap(text: str, width: int) -> list[str]:
    """The lines of a caption that is `width` pixels wide."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _font(CAPTION_SIZE).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _background(page: _Page, header: str) -> Image.Image:
    """What is the same in every frame: the header and the caption."""
    image = Image.new("RGB", (page.width, page.height), PAPER)
    draw = ImageDraw.Draw(image)
    size = 17
    while size > 9 and draw.textlength(header, _font(size)) > page.width - 2 * MARGIN:
        size -= 1
    draw.text((MARGIN, MARGIN - 4), header, INK, _font(size))
    for number, line in enumerate(page.caption):
        draw.text((MARGIN, page.caption_top + number * LINE), line, INK, _font(CAPTION_SIZE))
    return image


def _write_step(image: Image.Image, page: _Page, step: int) -> None:
    ImageDraw.Draw(image).text((MARGIN, MARGIN + LINE - 4), f"step {step}", INK, _font(14))


def _lay(
    image: Image.Image, page: _Page, place: int, picture: np.ndarray, word: str, colour: Colour
) -> None:
    """Puts one episode's picture in its place, in a border and above a word of that colour."""
    row, col = page.corner(place)
    height, width = picture.shape[0] + 2 * BORDER, picture.shape[1] + 2 * BORDER
    draw = ImageDraw.Draw(image)
    draw.rectangle((col, row, col + width - 1, row + height - 1), fill=colour)
    image.paste(Image.fromarray(picture), (col + BORDER, row + BORDER))
    draw.text((col + width / 2, row + height + 2), word, colour, _font(15), anchor="ma")


def _with_palette(frames: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """uint8[F, h, w] indices and the palette (r, g, b, r, ...) that all frames share."""
    red, green, blue = (frames[..., channel].astype(np.int32) for channel in range(3))
    packed = red << 16 | green << 8 | blue
    counts = np.bincount(packed.ravel(), minlength=2**24)
    colours = np.flatnonzero(counts)
    colours = colours[np.argsort(-counts[colours], kind="stable")]
    num_exact = len(colours) if len(colours) <= PALETTE_SIZE else NUM_EXACT
    exact, rest = _unpacked(colours[:num_exact]), _unpacked(colours[num_exact:])
    table = np.zeros(2**24, np.uint8)
    table[colours[:num_exact]] = np.arange(num_exact)
    palette = exact.ravel().tolist()
    if len(rest):
        strip = Image.fromarray(rest[None]).quantize(PALETTE_SIZE - num_exact)
        table[colours[num_exact:]] = num_exact + np.asarray(strip)[0]
        palette += strip.getpalette() or []
    return table[packed], palette


def _in_long_runs(mask: np.ndarray) -> np.ndarray:
    """bool[F, h, w]: where at least `SHORTEST` in a row are true."""
    edges = np.diff(np.pad(mask, ((0, 0), (0, 0), (1, 1))).astype(np.int8), axis=-1)
    first, beyond = (np.argwhere(edges == edge) for edge in (1, -1))  # in the same order
    is_long = beyond[:, -1] - first[:, -1] >= SHORTEST
    kept = np.zeros_like(edges)
    for ends, step in ((first, 1), (beyond, -1)):
        kept[tuple(ends[is_long].T)] = step
    return kept.cumsum(axis=-1)[..., :-1] > 0


def _unpacked(colours: np.ndarray) -> np.ndarray:
    """[N] -> uint8[N, 3]."""
    return np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=-1).astype(np.uint8)
