"""Arrays as text in a page: bytes that are gzipped and written in base 64, each under a name.

The page's `data.js` reads them. Numbers come out as they went in, to the bit.
"""

import base64
import gzip
from typing import Any, Final

import numpy as np

# What a page reads as one of its typed arrays; all little-endian.
KINDS: Final = ("u1", "i1", "u2", "i2", "u4", "i4", "f4")


def pack(content: bytes) -> str:
    """The bytes gzipped, in base 64; the same text each time."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


class Packed:
    """The arrays of one page, in the order in which they were put in."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}  # name -> base 64

    def put(self, values: np.ndarray, delta: bool = False) -> dict[str, Any]:
        """Keeps an array; returns what the page's data says of it.

        Bytes of equal weight lie side by side, which packs floats to four fifths. With `delta`
        integers are kept as differences, which wrap round: those of a path are small.
        """
        array = np.ascontiguousarray(values)
        kind = array.dtype.str[1:]
        if kind not in KINDS:
            raise ValueError(f"an array must be of {', '.join(KINDS)}, got {array.dtype}")
        flat = array.reshape(-1).astype(f"<{kind}")
        if delta:
            flat = np.diff(flat, prepend=flat.dtype.type(0))
        planes = flat.view(np.uint8).reshape(-1, flat.dtype.itemsize).T
        name = f"a{len(self.texts)}"
        self.texts[name] = pack(planes.tobytes())
        return {"array": name, "kind": kind, "delta": delta}
