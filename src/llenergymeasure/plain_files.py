"""Open what lies where a file belongs: only a plain file, and no larger than it can rightly be.

A pipe that nobody writes to never begins, a device never ends, and gigabytes of holes cost whoever
made them nothing. So kind and size are looked at before anything is read. A refusal is an
``OSError`` like those of the system: its ``strerror`` says what is wrong, in words.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from llenergymeasure.exceptions import link_that_leads_nowhere

MIB = 1 << 20
"""Bytes."""

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_NOBODY_S, _SILENT_S, _LOOK_S = 0.5, 5.0, 0.02


def opened(path: Path, most_bytes: int | None = None) -> BinaryIO:
    """Open a plain file for reading; never wait for one that is none.

    Args:
        path: The file, or a link to it.
        most_bytes: Its largest size; ``None`` for any.

    Raises:
        OSError: It is not there, may not be read, is of another kind, or too large.
    """
    try:
        _check(path.stat(), most_bytes)  # a device may act on being opened, so not only after it
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except ValueError:
        raise OSError(errno.EINVAL, "a name cannot hold a null byte") from None
    except FileNotFoundError as error:
        why = link_that_leads_nowhere(path) or error.strerror
        raise FileNotFoundError(errno.ENOENT, why, str(path)) from None
    try:
        _check(os.fstat(descriptor), most_bytes)
        return os.fdopen(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise


def read(path: Path, most_bytes: int) -> bytes:
    """Read a plain file.

    Args:
        path: The file, or a link to it.
        most_bytes: Its largest size.

    Raises:
        OSError: As for :func:`opened`.
    """
    parts, left = list[bytes](), most_bytes + 1
    with opened(path, most_bytes) as file:
        # Files of the kernel have no size, and some have no end; others grow meanwhile.
        at_once = max(os.fstat(file.fileno()).st_size, MIB)
        while part := file.read(min(at_once, left)):
            parts.append(part)
            left -= len(part)
    if not left:
        raise _too_large(most_bytes + 1, most_bytes)
    return b"".join(parts)


def read_or_pipe(path: Path, most_bytes: int) -> bytes:
    """Read a plain file, or what another program writes into a pipe, as from ``<(program)``.

    Args:
        path: The file or pipe, or a link to it.
        most_bytes: Most that is taken.

    Raises:
        OSError: As for :func:`opened`; or nobody writes to the pipe, or whoever has it open neither
            writes nor closes it for seconds.
    """
    if not path.is_fifo():
        return read(path, most_bytes)
    content, begun_s = b"", time.monotonic()
    heard_s = begun_s
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", 0) as pipe:
        while time.monotonic() - heard_s < _SILENT_S:
            part = pipe.read(most_bytes + 1 - len(content))
            if part:
                content, heard_s = content + part, time.monotonic()
                if len(content) > most_bytes:
                    raise _too_large(len(content), most_bytes)
            elif part is not None and content:
                return content
            elif part is not None and time.monotonic() - begun_s > _NOBODY_S:
                raise OSError(errno.EPIPE, "it is a pipe that nobody writes to")
            else:  # somebody has it open and writes nothing, or nobody has it open yet
                time.sleep(_LOOK_S)
    raise OSError(errno.ETIMEDOUT, f"it is a pipe that was silent for {_SILENT_S:g} s")


def lines(file: BinaryIO, most_bytes: int) -> Iterator[bytes]:
    """Yield the lines of a file, each with what ends it.

    Args:
        file: The file, from where it stands.
        most_bytes: Longest line.

    Raises:
        OSError: A line is longer; the message has its number, from 1.
    """
    number = 0
    while line := file.readline(most_bytes + 1):
        number += 1
        if len(line) > most_bytes:
            raise OSError(errno.EFBIG, f"line {number} is longer than {_size(most_bytes)}")
        yield line


def kind_of(path: Path) -> str | None:
    """Say what lies in the place of a file, such as ``a pipe``; ``None`` for a file or nothing."""
    try:
        return _KINDS.get(stat.S_IFMT(path.stat().st_mode))
    except (OSError, ValueError):
        return None


def _check(status: os.stat_result, most_bytes: int | None) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR:
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    nothing = kind == stat.S_IFCHR and status.st_rdev == Path(os.devnull).stat().st_rdev
    if kind != stat.S_IFREG and not nothing:
        raise OSError(errno.EINVAL, f"it is {_KINDS.get(kind, 'something else')}, not a file")
    if most_bytes is not None and status.st_size > most_bytes:
        raise _too_large(status.st_size, most_bytes)


def _too_large(found_bytes: int, most_bytes: int) -> OSError:
    found = f"{found_bytes:,} bytes" if found_bytes > most_bytes + 1 else "more than that"
    return OSError(errno.EFBIG, f"it is too large: {found}, of at most {_size(most_bytes)}")


def _size(count: int) -> str:
    return f"{count // MIB:,} MiB" if count % MIB == 0 else f"{count:,} bytes"
