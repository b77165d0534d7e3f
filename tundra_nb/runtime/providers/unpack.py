"""Decoding of compressed answers, in slices of bounded size.

We ask for none (`accept-encoding: identity`), because a compressor holds a stream back; some servers compress all the
same. A few kilobytes can unpack to gigabytes, so that nothing is unpacked beyond the slice that is taken.
"""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

SLICE_BYTES = 256 * 1024
GZIP_BEGIN = b"\x1f"
_TEXT = re.compile(rb"[\t\r\n -~]")
_OTHER_PACKERS = frozenset(
    {"compress", "x-compress", "x-deflate", "xz", "lzma", "bzip2", "snappy", "lz4", "dcb", "dcz"}
)
"""Compressions that we cannot read; what else a server puts there (`utf-8`, `none`) is no compression."""
DAMAGED = "it is compressed and damaged"


class CannotUnpackError(ValueError):
    """The encoding is not known here, or the bytes are not of it."""


class Unpacker:
    """Unpacks one body. `encodings` is the header's value, in the order in which they were applied."""

    def __init__(self, encodings: str) -> None:
        names = [
            name
            for told in encodings.split(",")
            if (name := told.partition(";")[0].strip().lower()) not in ("", "identity")
        ]
        for name in names:
            if name in _OTHER_PACKERS:
                raise CannotUnpackError(f"it is compressed with {name!r}, which was not asked for")
        self._stages: list[_Stage] = [_STAGES[name]() for name in reversed(names) if name in _STAGES]

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


class _Stage(Protocol):
    """One encoding."""

    @property
    def is_open(self) -> bool:
        """Whether it has begun and not ended."""
        ...

    def feed(self, data: bytes) -> Iterator[bytes]: ...


class _Zlib:
    def __init__(self, is_gzip: bool) -> None:
        self._is_gzip = is_gzip
        self._unpack = zlib.decompressobj(zlib.MAX_WBITS | 16 if is_gzip else zlib.MAX_WBITS)
        self._is_first = True
        self._is_plain = False

    @property
    def is_open(self) -> bool:
        return not self._is_first and not self._unpack.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._is_gzip and self._is_first and data and _TEXT.match(data):  # a header and nothing behind it
            self._is_plain = True
        if self._is_plain:
            if data:
                yield data
            return
        while data:
            if self._unpack.eof and not self._goes_on(data):
                return
            try:
                unpacked = self._unpack.decompress(data, SLICE_BYTES)
            except zlib.error as exc:
                if not self._is_first or self._is_gzip:
                    raise CannotUnpackError(DAMAGED) from exc
                self._unpack = zlib.decompressobj(-zlib.MAX_WBITS)  # some servers leave the frame of deflate out
                self._is_first = False
                continue
            self._is_first = False
            if unpacked:
                yield unpacked
            data = self._unpack.unused_data if self._unpack.eof else self._unpack.unconsumed_tail

    def _goes_on(self, data: bytes) -> bool:
        """Whether a member of gzip follows another (RFC 1952, 2.2), as of a server that packs piece by piece."""
        if not self._is_gzip or data[:1] != GZIP_BEGIN:  # padding, or what a server adds to its answer by mistake
            return False
        self._unpack = zlib.decompressobj(zlib.MAX_WBITS | 16)
        return True


class _Brotli:
    def __init__(self) -> None:
        import brotli

        self._error = brotli.error
        self._unpack = brotli.Decompressor()
        self._is_first = True

    @property
    def is_open(self) -> bool:
        return not self._is_first and not self._unpack.is_finished()

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._is_first = False
        while not self._unpack.is_finished():
            try:
                unpacked = self._unpack.process(data, output_buffer_limit=SLICE_BYTES)
            except self._error as exc:
                raise CannotUnpackError(DAMAGED) from exc
            if not unpacked:
                return
            yield unpacked
            data = b""


class _Zstd:
    def __init__(self) -> None:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd

        self._error = zstd.ZstdError
        self._new = zstd.ZstdDecompressor
        self._unpack = self._new()
        self._is_first = True

    @property
    def is_open(self) -> bool:
        return not self._is_first and not self._unpack.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data or not self._unpack.needs_input:
            if self._unpack.eof:  # a frame may follow another
                data = self._unpack.unused_data or data
                if not data:
                    return
                self._unpack = self._new()
            self._is_first = False
            try:
                unpacked = self._unpack.decompress(data, SLICE_BYTES)
            except self._error as exc:
                raise CannotUnpackError(DAMAGED) from exc
            data = self._unpack.unused_data if self._unpack.eof else b""
            if unpacked:
                yield unpacked


_STAGES: dict[str, Callable[[], _Stage]] = {
    "gzip": lambda: _Zlib(is_gzip=True),
    "x-gzip": lambda: _Zlib(is_gzip=True),
    "deflate": lambda: _Zlib(is_gzip=False),
    "br": _Brotli,
    "zstd": _Zstd,
}
"""By the name in the header; the last two are imported when they are met."""
