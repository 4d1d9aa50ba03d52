"""Atomic file writes. A measurement never overwrites an earlier one."""

import errno
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read(path: str | Path) -> bytes:
    """The content of a regular file. Raises OSError for anything else: reading a pipe could block forever."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        # Without a stream, which takes as long as all the rest.
        return b"".join(iter(lambda: os.read(descriptor, status.st_size + 1), b""))
    finally:
        os.close(descriptor)


def read_json(path: Path) -> Any:
    """The JSON document in a regular file. Raises ValueError if it is not JSON, and OSError."""
    try:
        return json.loads(read(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from None


def remove_private_folder(suffix: str) -> None:
    """Remove it with all that is in it, as far as that is possible."""
    shutil.rmtree(_private_folder(suffix), ignore_errors=True)


def _private_folder(suffix: str) -> Path:
    return Path(tempfile.gettempdir(), f"inference-benchmark-{os.getuid()}{suffix}")


def private_folder(suffix: str = "") -> Path:
    """A folder for temporary files that only this user can open, made if it is missing. Raises OSError, also where
    another user made it first: its name is predictable."""
    folder = _private_folder(suffix)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        what = "belongs to another user or is open to others; set TMPDIR to a folder of your own"
        raise PermissionError(errno.EPERM, what, str(folder))
    return folder


def check_writable(path: Path) -> None:
    """Raises OSError if a record could not be written to path. Meant to be called before a long measurement."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent) as probe:
        probe.write(b"\0" * 65536)
        probe.flush()


def write(content: str | bytes, path: Path, keep_earlier: bool = False) -> None:
    """Write a file atomically: whole or, with an OSError, not at all. keep_earlier: an existing file is set aside."""
    content = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():  # for example /dev/stdout
        path.write_bytes(content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    stream = unfinished.open("xb")
    try:
        with stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if keep_earlier and path.exists():
            set_aside(path)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(document: Mapping[str, Any], path: Path) -> None:
    """Write a measurement as JSON, atomically; an earlier one is set aside."""
    write(json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n", path, keep_earlier=True)


def set_aside(path: Path) -> Path:
    """Rename a file to a name with its modification time; return the new path. Raises FileExistsError."""
    stamp = int(path.stat().st_mtime)
    for attempt in range(1000):
        new_path = path.with_name(f"{path.stem}.superseded-{stamp}{f'-{attempt}' if attempt else ''}{path.suffix}")
        if not new_path.exists():
            return path.rename(new_path)
    raise FileExistsError(f"{path.parent} holds a thousand superseded records of {path.name}")
