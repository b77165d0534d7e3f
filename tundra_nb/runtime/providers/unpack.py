"""Decoding of compressed answers, in slices of bounded size.

We ask for none (`accept-encoding: identity`), because a compressor holds a stream back; some servers compress all the
same. A few kilobytes can unpack to gigabytes, so that nothing is unpacked beyond the slice that is taken.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

SLICE_BYTES = 256 * 1024
_GZIP = frozenset({"gzip", "x-gzip"})
_DEFLATE = "deflate"


class CannotUnpackError(ValueError):
    """The encoding is not known here, or the bytes are not of it."""


class Unpacker:
    """Unpacks one body. `encodings` is the header's value, in the order in which they were applied."""

    def __init__(self, encodings: str) -> None:
        names = [name for told in encodings.split(",") if (name := told.strip().lower()) not in ("", "identity")]
        for name in names:
            if name not in _GZIP and name != _DEFLATE:
                raise CannotUnpackError(f"it is compressed with {name!r}, which was not asked for")
        self._stages = [_Stage(name) for name in reversed(names)]

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The slices that more of the body unpacks to.

        Raises:
            CannotUnpackError: it is damaged.
        """
        return self._through(0, data)

    def end(self) -> None:
        """The body is over.

        Raises:
            CannotUnpackError: it was cut.
        """
        if any(stage.is_open for stage in self._stages):
            raise CannotUnpackError("it is compressed and ends in the middle")

    def _through(self, number: int, data: bytes) -> Iterator[bytes]:
        if number == len(self._stages):
            if data:
                yield data
            return
        for slice_ in self._stages[number].feed(data):
            yield from self._through(number + 1, slice_)


class _Stage:
    """One encoding."""

    def __init__(self, name: str) -> None:
        self._is_gzip = name in _GZIP
        self._unpack = zlib.decompressobj(zlib.MAX_WBITS | 16 if self._is_gzip else zlib.MAX_WBITS)
        self._is_first = True

    @property
    def is_open(self) -> bool:
        return not self._is_first and not self._unpack.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data and not self._unpack.eof:
            try:
                unpacked = self._unpack.decompress(data, SLICE_BYTES)
            except zlib.error as exc:
                if not self._is_first or self._is_gzip:
                    raise CannotUnpackError("it is compressed and damaged") from exc
                self._unpack = zlib.decompressobj(-zlib.MAX_WBITS)  # some servers leave the frame of deflate out
                self._is_first = False
                continue
            self._is_first = False
            if unpacked:
                yield unpacked
            data = self._unpack.unconsumed_tail
