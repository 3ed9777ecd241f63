"""A file is whole or not there, and one that is not whole is refused by name."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from hotoven import storage


def test_a_write_makes_its_folders_and_replaces_the_old_file(tmp_path: Path):
    path = tmp_path / "deep" / "er" / "note.bin"
    storage.write_bytes(path, b"old")
    storage.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert [file.name for file in path.parent.iterdir()] == ["note.bin"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("call", ["fsync", "chmod", "replace"])
def test_an_error_in_the_middle_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
):
    path = tmp_path / "note.bin"
    storage.write_bytes(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="disk full"):
        storage.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["note.bin"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_process_that_dies_in_the_middle_leaves_the_old_file(tmp_path: Path, call: str):
    path = tmp_path / "note.bin"
    storage.write_bytes(path, b"old")
    # The module's own file is run, so that the process need not import jax.
    program = f"""
import importlib.util, os, pathlib
spec = importlib.util.spec_from_file_location("storage", {storage.__file__!r})
storage = importlib.util.module_from_spec(spec)
spec.loader.exec_module(storage)
os.{call} = lambda *_: os._exit(9)
storage.write_bytes(pathlib.Path({str(path)!r}), b"new")
"""
    died = subprocess.run([sys.executable, "-c", program], check=False)
    assert died.returncode == 9
    assert path.read_bytes() == b"old"


def test_json_is_read_back(tmp_path: Path):
    content = {"rate": 0.25, "missing": None, "names": ["a", "b"]}
    storage.write_json(tmp_path / "a.json", content)
    assert storage.read_json(tmp_path / "a.json") == content


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_does_not_exist_is_not_written_as_json(tmp_path: Path, number: float):
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json(tmp_path / "a.json", {"auc": number})
    assert list(tmp_path.iterdir()) == []


def test_arrays_are_read_back_with_their_shapes_dtypes_and_text(tmp_path: Path):
    arrays = {
        "scalar": np.float32(1.5),
        "transposed": np.arange(6, dtype=np.int64).reshape(2, 3).T,
        "every_other": np.arange(8, dtype=np.uint8)[::2],
        "empty": np.zeros((0, 4), np.int8),
        "flags": np.array([True, False]),
    }
    storage.write_arrays(tmp_path / "a.safetensors", arrays, {"note": "hello"})
    back, text = storage.read_arrays(tmp_path / "a.safetensors")
    assert text == {"note": "hello"}
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (back[name].shape, back[name].dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(back[name], array)


def test_a_table_with_a_changed_byte_is_refused_wherever_it_lies(tmp_path: Path):
    path = tmp_path / "table.parquet"
    storage.write_table(path, {"a": np.arange(2000.0), "b": np.arange(2000) % 7})
    whole, table = path.read_bytes(), storage.read_table(path)
    for place in np.random.default_rng(0).integers(4, len(whole) - 4, 100):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        try:
            assert storage.read_table(path).equals(table)  # nothing that is read has changed
        except ValueError as error:
            assert "table.parquet" in str(error)


def test_a_table_without_a_needed_column_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "table.parquet"
    storage.write_table(path, {"a": np.arange(3)})
    with pytest.raises(ValueError, match=r"table\.parquet lacks the columns b, c$"):
        storage.read_table(path, ("a", "b", "c"))


def test_a_table_is_read_back(tmp_path: Path):
    columns = {"level": np.arange(3), "solved": np.array([True, False, True])}
    storage.write_table(tmp_path / "a.parquet", columns)
    assert storage.read_table(tmp_path / "a.parquet").to_pydict() == {
        "level": [0, 1, 2],
        "solved": [True, False, True],
    }


WRITERS = {
    "json": (lambda path: storage.write_json(path, {"a": [1, 2, 3]}), storage.read_json),
    "safetensors": (
        lambda path: storage.write_arrays(path, {"a": np.arange(100)}, {"b": "c"}),
        storage.read_arrays,
    ),
    "parquet": (
        lambda path: storage.write_table(path, {"a": np.arange(100)}),
        storage.read_table,
    ),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_file_cut_short_is_refused_by_name(tmp_path: Path, kind: str, share: float):
    write, read = WRITERS[kind]
    path = tmp_path / f"cut.{kind}"
    write(path)
    read(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=rf"cut\.{kind} is not "):
        read(path)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_missing_file_is_refused_by_name(tmp_path: Path, kind: str):
    _, read = WRITERS[kind]
    with pytest.raises(ValueError, match=rf"no file .*absent\.{kind}"):
        read(tmp_path / f"absent.{kind}")


@pytest.mark.parametrize("kind", WRITERS)
def test_bytes_of_another_format_are_refused(tmp_path: Path, kind: str):
    _, read = WRITERS[kind]
    path = tmp_path / f"other.{kind}"
    path.write_bytes(b"\x80\x04\x95 not what the name says \xff" * 9)
    with pytest.raises(ValueError, match=rf"other\.{kind} is not "):
        read(path)


def test_floats_stored_byte_by_byte_come_back_and_take_less_room(tmp_path: Path):
    values = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    columns = {"kind": pa.array(["a", "b"] * 10_000), "value": pa.array(values)}
    storage.write_table(tmp_path / "plain.parquet", columns)
    storage.write_table(tmp_path / "split.parquet", columns, split=["value"])
    split, plain = (storage.read_table(tmp_path / f"{name}.parquet") for name in ("split", "plain"))
    assert split == plain
    sizes = [(tmp_path / f"{name}.parquet").stat().st_size for name in ("split", "plain")]
    assert sizes[0] < 0.9 * sizes[1]
