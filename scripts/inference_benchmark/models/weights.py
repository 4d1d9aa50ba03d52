"""The files that hold a checkpoint's weights: which ones transformers reads, whether they are whole, and their digest.

Nothing here loads a tensor: the header of a safetensors file names them all.
"""

import hashlib
import json
import os
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_benchmark import files
from inference_benchmark.units import format_bytes

#: What transformers looks for, in this order: one file, or an index of several (shards).
_FILES = ("model.safetensors", "pytorch_model.bin")
#: The longest header that safetensors itself accepts.
_MAX_HEADER_BYTES = 100_000_000
#: The dtypes of weights that any precision can be made from.
_PLAIN = {"F64", "F32", "F16", "BF16"}
_INTEGERS = {"I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "BOOL"}
#: The beginning of a pickle as torch wrote it before it wrote zip files: the magic number of that format.
_OLD_PICKLE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
#: Longer than the steps in which any file system counts time.
_SETTLED_NS = 2_000_000_000


class CheckpointError(RuntimeError):
    """The weights are not available; the message says why and what to do."""


@dataclass(frozen=True)
class Weights:
    """The files that transformers reads a checkpoint's weights from. format: ``safetensors`` or ``pickle``. index: the
    file that names the shards; None if there is only one file."""

    format: str
    shards: tuple[Path, ...]
    index: Path | None


def find(folder: Path, config: Mapping[str, Any]) -> Weights:
    """The weights of a checkpoint, chosen as transformers does. config: its config.json. Raises CheckpointError."""
    named = config.get("transformers_weights")
    singles = [named.removesuffix(".index.json")] if isinstance(named, str) else _FILES
    for single in singles:
        kind = "pickle" if single.endswith(".bin") else "safetensors"
        if (folder / single).is_file():
            return Weights(kind, (folder / single,), None)
        index = folder / f"{single}.index.json"
        if index.is_file():
            return Weights(kind, tuple(folder / name for name in sorted(set(_weight_map(index).values()))), index)
    raise CheckpointError(
        f"{folder} holds no weights; allowed: {' or '.join(singles)}, or shards with {singles[0]}.index.json"
    )


def check(weights: Weights, is_quantised: bool = False) -> None:
    """Raises CheckpointError if a file is missing or cut off, or holds weights that no precision can be made from.
    is_quantised: whether the configuration says so, and the weights are loaded as they are."""
    if missing := [shard.name for shard in weights.shards if not shard.is_file()]:
        n_missing = f"{len(missing)} of {len(weights.shards)}"
        raise CheckpointError(
            f"{weights.index} names shards that are not there ({n_missing}): {some(missing)}; copy or download them"
        )
    tensors = {shard: _tensors(shard) for shard in weights.shards}
    if weights.format == "safetensors" and weights.index is not None:
        by_name = {shard.name: names for shard, names in tensors.items()}
        if missing := [name for name, shard in _weight_map(weights.index).items() if name not in by_name[shard]]:
            raise CheckpointError(
                f"{weights.index} names tensors that their shards do not hold ({len(missing)}): {some(missing)}; "
                "index and shards belong to different checkpoints"
            )
    for shard, dtypes in () if is_quantised else tensors.items():
        for name, (dtype, _) in dtypes.items():
            if dtype not in _PLAIN | _INTEGERS or (dtype in _INTEGERS and name.endswith("weight")):
                raise CheckpointError(
                    f"{shard}: {name} is stored as {dtype}, quantised already; "
                    f"allowed: weights in {', '.join(sorted(_PLAIN))}, from which each precision is made"
                )


def layout(weights: Weights) -> dict[str, tuple[str, list[int]]]:
    """(dtype, shape) of all tensors, by name, as the headers say; empty for pickles. Raises CheckpointError."""
    return {name: tensor for shard in weights.shards for name, tensor in _tensors(shard).items()}


def digest(weights: Weights, memory: Path) -> str:
    """SHA-256 of the index and of every byte of every shard. Raises OSError. memory: a folder with the digests of files
    read before. A file is known again by size, times and inode."""
    unknown = [shard for shard in weights.shards if _known(shard, memory) is None]
    n_bytes = sum(shard.stat().st_size for shard in unknown)
    if n_bytes > 2_000_000_000:
        print(f"reading {format_bytes(n_bytes)} of weights in {unknown[0].parent} for their digest", file=sys.stderr)
    with ThreadPoolExecutor(4) as pool:
        digests = list(pool.map(lambda shard: _known(shard, memory) or _file_digest(shard, memory), weights.shards))
    whole = hashlib.sha256(weights.index.read_bytes() if weights.index else b"")
    for shard, text in zip(weights.shards, digests, strict=True):
        whole.update(f"{shard.name}\0{text}\0".encode())
    return whole.hexdigest()


def _weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map = files.read_json(index)["weight_map"]
        if any(Path(name).name != name for name in weight_map.values()):
            raise ValueError("a shard outside the folder")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} cannot be read as an index of shards: {error}") from None
    return weight_map


def _tensors(path: Path) -> dict[str, tuple[str, list[int]]]:
    """(dtype, shape) of each tensor in a safetensors file, by name; none for a pickle. Raises CheckpointError."""
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            start = stream.read(128)
            if start.startswith(b"version https://git-lfs"):
                raise CheckpointError(f"{path} is a pointer of Git LFS in place of the weights; run: git lfs pull")
            if path.suffix == ".bin":
                _check_pickle(path, start)
                return {}
            header_bytes = int.from_bytes(start[:8], "little")
            if len(start) < 8 or not 2 <= header_bytes <= _MAX_HEADER_BYTES:
                raise CheckpointError(f"{path} is not a safetensors file; copy or download it again")
            stream.seek(8)
            header = stream.read(header_bytes) if header_bytes <= size - 8 else b""
        header = json.loads(header) if header else {}
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = 8 + header_bytes + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        if size != end:
            raise CheckpointError(
                f"{path} is {size:,} bytes long, its header says {end:,}{' or more' if not header else ''}: "
                "cut off or still being copied; copy or download it again"
            )
        return {name: (str(entry["dtype"]), list(entry["shape"])) for name, entry in tensors.items()}
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(
            f"{path} has a header that is not a safetensors header; copy or download it again"
        ) from None


def _check_pickle(path: Path, start: bytes) -> None:
    """torch writes zip files, whose list of contents is at the end; the older format has no length to check."""
    if start.startswith(_OLD_PICKLE):
        return
    try:
        zipfile.ZipFile(path).close()
    except zipfile.BadZipFile:
        is_cut = start.startswith(b"PK")
        what = "is cut off or still being copied" if is_cut else "is not a weights file written by torch"
        raise CheckpointError(f"{path} {what}; copy or download it again") from None


def some(names: Sequence[str]) -> str:
    """Names for a message, not too many."""
    return ", ".join(names if len(names) <= 3 else [*names[:3], "..."])


# -- digests -------------------------------------------------------------------------------------------


def _stamp(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _note(path: Path, memory: Path) -> Path:
    return memory / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.json"


def _known(path: Path, memory: Path) -> str | None:
    """The remembered digest of a file that has not changed since."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        note = files.read_json(_note(path, memory))
        if note["stamp"] == _stamp(path.stat()):
            return str(note["sha256"])
    return None


def _file_digest(path: Path, memory: Path) -> str:
    with path.open("rb") as stream:
        before = os.fstat(stream.fileno())
        text = hashlib.file_digest(stream, "sha256").hexdigest()
        after = os.fstat(stream.fileno())
    # A change within the same tick of the file system's clock would leave the stamp as it is.
    is_settled = time.time_ns() - max(after.st_mtime_ns, after.st_ctime_ns) > _SETTLED_NS
    if _stamp(before) == _stamp(after) and is_settled:
        with suppress(OSError):  # a cache that cannot be written to
            files.write(json.dumps({"stamp": _stamp(after), "sha256": text}), _note(path, memory))
    return text
