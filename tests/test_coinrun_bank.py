"""Levels of CoinRun on disk: the same as made anew, or refused."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from hotoven.envs.coinrun import bank, level
from hotoven.storage import read_arrays, write_arrays

FIRST = 3 * bank.BLOCK
IDS = np.arange(FIRST, FIRST + bank.BLOCK)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOTOVEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def assert_same(left: object, right: object) -> None:
    jax.tree.map(np.testing.assert_array_equal, left, right)


def files(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.glob("*"))


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    def generate(ids: np.ndarray, mode: str) -> object:
        raise AssertionError("levels are made anew")

    bank._pattern("hard")
    monkeypatch.setattr(level, "generate", generate)


def test_a_block_that_was_kept_is_what_would_be_made_anew(cache, monkeypatch):
    first = bank.generate(IDS, "hard")
    assert files(cache) == ["coinrun-hard-v1-3072.safetensors"]
    assert_same(first, level.generate(IDS, "hard"))
    forbid(monkeypatch)
    again = bank.generate(IDS, "hard")
    assert_same(again, first)
    assert jax.tree.structure(again) == jax.tree.structure(first)


def test_only_whole_blocks_are_kept(cache):
    for ids in (IDS[:5], IDS + 1, IDS[::-1], np.zeros(0, np.int64), IDS[None]):
        assert not bank._is_blocks(ids)
    assert bank._is_blocks(np.concatenate([IDS, IDS - bank.BLOCK]))
    assert_same(bank.generate(IDS[:5], "easy"), level.generate(IDS[:5], "easy"))
    assert files(cache) == []


def test_a_damaged_file_is_refused_in_one_line_and_left_alone(cache):
    bank.generate(IDS, "easy")
    path = bank.path_of(FIRST, "easy")
    whole = path.read_bytes()
    for damaged in (whole[:5000], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="remove it, and its levels are made again") as error:
            bank.generate(IDS, "easy")
        assert str(path) in str(error.value) and "\n" not in str(error.value)
        assert path.read_bytes() == damaged
    path.unlink()
    bank.generate(IDS, "easy")
    assert path.read_bytes() == whole


def test_levels_of_another_version_mode_or_block_are_refused(cache):
    bank.generate(IDS, "easy")
    path = bank.path_of(FIRST, "easy")
    arrays, metadata = read_arrays(path)
    about = json.loads(metadata["block"])
    for change in ({"version": 0}, {"mode": "hard"}, {"first": 0}):
        write_arrays(path, arrays, {"block": json.dumps(about | change)})
        with pytest.raises(ValueError, match=f"must hold .*'version': {level.VERSION}.*; remove"):
            bank.generate(IDS, "easy")
    some = {name: array for name, array in arrays.items() if name != "level.3"}
    write_arrays(path, some, metadata)
    with pytest.raises(ValueError, match="does not hold the arrays of a block of levels; remove"):
        bank.generate(IDS, "easy")
    write_arrays(path, arrays, {})
    with pytest.raises(ValueError, match="it holds no levels"):
        bank.generate(IDS, "easy")


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HOTOVEN_CACHE", str(tmp_path / "file" / "cache"))
    levels, _ = bank.generate(IDS, "easy")
    assert len(levels.ties) == bank.BLOCK


def test_the_cache_lies_where_the_user_wants_it(monkeypatch, tmp_path):
    monkeypatch.delenv("HOTOVEN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert bank.folder() == tmp_path / "hotoven"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert bank.folder() == Path.home() / ".cache" / "hotoven"


def test_what_is_no_block_of_levels_is_refused_as_ever(cache):
    with pytest.raises(ValueError, match="mode must be one of easy, hard, got 'medium'"):
        bank.generate(IDS, "medium")
    with pytest.raises(ValueError, match="level ids must not be negative, got -1024"):
        bank.generate(np.arange(-bank.BLOCK, 0), "easy")
