"""Files that are either whole or not there: bytes, JSON, arrays and tables, written atomically.

Everything is written to a temporary name in the same folder, synced, and renamed over the target.
Arrays are safetensors, tables are Parquet; nothing is ever pickled.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from safetensors import numpy as safetensors_numpy

HEAD: Final = "hotoven"  # the metadata entry of our safetensors files


class Damaged(ValueError):
    """A file that can be read and holds what hotoven would not write; the message names it."""


@contextmanager
def as_written(path: Path) -> Iterator[None]:
    """Where what `path` holds is used: a complaint within about its content names the file.

    Raises:
      Damaged: in place of what values of a wrong kind, number or shape raise.
    """
    try:
        yield
    except Damaged:
        raise
    except (
        *(ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError),
        pa.ArrowException,
    ) as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        what = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise Damaged(f"{path} is not as hotoven writes it: {what}{error}") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` to `path` so that a reader sees the old file or the new one, no part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp gives 0600
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)


def write_json(path: Path, content: Any) -> None:
    """Writes `content` as indented JSON. NaN is refused: a number that does not exist is null."""
    write_bytes(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """What `path` holds.

    Raises:
      ValueError: the file is missing or is not JSON; the message names it.
    """
    try:
        return json.loads(path.read_text())
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None
    except FileNotFoundError:
        raise ValueError(f"no file {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes named arrays and text as one safetensors file, with a checksum of all of it."""
    # ascontiguousarray would turn a scalar into a vector, so only what needs it is copied.
    whole = {
        name: array if array.flags.c_contiguous else np.ascontiguousarray(array)
        for name, array in ((name, np.asarray(array)) for name, array in arrays.items())
    }
    # one entry: safetensors writes several in an order that differs from process to process
    head = json.dumps({"metadata": dict(metadata), "checksum": _checksum(whole, metadata)})
    write_bytes(path, safetensors_numpy.save(whole, {HEAD: head}))


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the text of a safetensors file.

    Raises:
      ValueError: the file is missing, cut short, changed or of another format.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            head = json.loads((file.metadata() or {}).get(HEAD, "{}"))
    except FileNotFoundError:
        raise ValueError(f"no file {path}") from None
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from None
    if not isinstance(head, dict) or not isinstance(head.get("metadata", {}), dict):
        raise ValueError(f"{path} is not one of our files: its metadata is {head!r}")
    metadata = head.get("metadata", {})
    if head.get("checksum") != _checksum(arrays, metadata):
        raise ValueError(f"{path} is damaged: its content is not what its checksum names")
    return arrays, metadata


def write_table(path: Path, columns: Mapping[str, Any], split: Sequence[str] = ()) -> None:
    """Writes named columns (arrays [rows], or pyarrow arrays) as one Parquet file.

    Columns named in `split`, of floats that hardly repeat, are stored byte by byte, which packs
    them to two thirds.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table(dict(columns)),
        sink,
        compression="zstd",
        compression_level=15,  # a twentieth smaller than by the default, in half a second more
        write_page_checksum=True,
        use_dictionary=[name for name in columns if name not in split] if split else True,
        column_encoding={name: "BYTE_STREAM_SPLIT" for name in split} or None,
    )
    write_bytes(path, sink.getvalue().to_pybytes())


def read_table(path: Path, needed: Sequence[str] = ()) -> pa.Table:
    """The table in a Parquet file, whose pages are checked against their checksums.

    Raises:
      ValueError: the file is missing, damaged or not Parquet, or lacks a column of `needed`; the
        message names it.
    """
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except FileNotFoundError:
        raise ValueError(f"no file {path}") from None
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a whole Parquet file: {error}") from None
    lacking = [name for name in needed if name not in table.column_names]
    if lacking:
        raise ValueError(f"{path} lacks the columns {', '.join(lacking)}")
    return table


def _checksum(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """32 hex digits that name the arrays, their names, dtypes and shapes, and the text."""
    digest = hashlib.blake2b(json.dumps(sorted(metadata.items())).encode(), digest_size=16)
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}/{array.dtype.str}/{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
