"""Copies of a model's directory in which some tensors are changed in place."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hubedit.checkpoint import CHUNK, INDEX, Checkpoint, DirectorySource
from hubedit.digests import sha256_file
from hubedit.errors import DeltaError, OutputError, near_misses
from hubedit.finishing import finished
from hubedit.rewriting import homes, rewrite_index, rewrite_shard
from hubedit.stored import StoredTensor

_FICLONE = 0x40049409
_OTHER_WEIGHTS = (
    ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".onnx_data",
    ".gguf", ".tflite", ".npz", ".ot", ".mlmodel", ".pkl", ".pickle", ".safetensors.index.json",
    ".bin.index.json",
)  # fmt: skip
"""How files end that hold weights again, or list such files: copies would stay unedited."""


def materialize(
    source_dir: Path | str,
    target_dir: Path | str,
    changes: Mapping[str, StoredTensor] | Mapping[str, Callable[[], StoredTensor]],
    *,
    files: Iterable[str] | None = None,
    texts: Mapping[str, bytes] | None = None,
    added: Mapping[str, StoredTensor] | None = None,
    dropped: Collection[str] = (),
    link: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
    hashed: bool = False,
    workers: int | None = None,
    in_place: bool = False,
) -> dict[str, str]:
    """Copy a model's directory with some tensors changed; headers and order of bytes stay.

    Shards that gain or lose a tensor get a new header, in canonical form, and so does the index.
    The copy is made beside the target and takes its name when it is complete. Files are copied in
    parallel; one tensor is in memory at a time, where `changes` are functions.

    Args:
        source_dir: a directory with a model; links in it are followed.
        target_dir: does not exist, or is empty.
        changes: the new tensors by name, or functions that return them.
        files: names of the files to copy, relative with `/`; by default all that are not hidden and
            hold no weights beside those of the checkpoint.
        texts: contents of files that are written instead of copied, or beside them.
        added: tensors that the model does not have, by name; they go to its last shard.
        dropped: names of tensors that it is to have no longer.
        link: hard-link files without changes where the system can, instead of copying them; they
            are then the same files, so that writing to one writes to both.
        progress: called with a file's name, bytes done and bytes in all, after each file.
        hashed: also return the SHA-256 (hex) of each copied file that is other than the source's.
        workers: how many files are copied at a time; by default one for each core.
        in_place: write to the target itself, which its owner finishes or deletes.

    Raises:
        OutputError: the target holds something, or cannot be written.
        DeltaError: a tensor does not exist, or has another dtype or shape; an added one exists.
        UnsupportedModelError: the source holds no model that can be read.
    """
    source, target = Path(source_dir), Path(target_dir)
    checkpoint = Checkpoint.open(DirectorySource(source))
    added = added or {}
    home = homes(checkpoint, added, dropped)
    anew = {home[name] for name in added} | {checkpoint.tensors[name].file for name in dropped}
    by_file: dict[str, list[str]] = {}
    for name in sorted(changes):
        if name not in checkpoint.tensors or name in dropped:
            raise DeltaError(
                f"the model has no tensor {name!r}; {near_misses(name, checkpoint.tensors)}"
            )
        by_file.setdefault(checkpoint.tensors[name].file, []).append(name)
    names = sorted(set(files) if files is not None else _copied(source, checkpoint))
    left_out = sorted((set(by_file) | anew) - set(names))
    if left_out:
        raise DeltaError(
            f"{left_out[0]} holds tensors to change and is not among the files to copy"
        )
    absent = [name for name in names if not _inside(source, name).is_file()]
    if absent:
        raise OutputError(f"{source} has no file {absent[0]!r} to copy")
    texts = texts or {}
    lost = sorted(set(texts) & {*checkpoint.files})
    if lost:
        raise OutputError(f"{lost[0]} holds weights or lists them, and is not written as text")
    copied = [name for name in names if name not in texts]
    sizes = {name: (source / name).stat().st_size for name in copied}
    one_tensor, gate = threading.Lock(), threading.Condition()
    stopped, writing = threading.Event(), set[str]()
    with _finished(target, in_place=in_place) as work:
        for name, content in texts.items():
            written = _inside(work, name)
            written.parent.mkdir(parents=True, exist_ok=True)
            written.write_bytes(content)

        def write(name: str) -> str | None:
            """Write one file, unless work has stopped; returns as `write_file`."""
            with gate:
                if stopped.is_set():
                    return None
                writing.add(name)
            try:
                return write_file(name)
            finally:
                with gate:
                    writing.discard(name)
                    gate.notify_all()

        def write_file(name: str) -> str | None:
            """Write one file; returns its digest if that was asked for and is not the source's."""
            copy = _inside(work, name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            touched = by_file.get(name, [])
            if name in anew:
                stay = [tensor for tensor, file in home.items() if file == name]
                new = {tensor: changes[tensor] for tensor in touched}
                new |= {tensor: added[tensor] for tensor in stay if tensor in added}
                if not stay:
                    return None
                with one_tensor:
                    rewrite_shard(source / name, copy, checkpoint, stay, new)
            elif name == INDEX and anew:
                copy.write_bytes(rewrite_index(source / name, home, checkpoint, added))
            elif link and not touched and _linked(source / name, copy):
                return None
            else:
                _copy(source / name, copy)
                if touched:
                    of_file = {tensor: changes[tensor] for tensor in touched}
                    _overwrite(copy, checkpoint, of_file, one_tensor)
            other = touched or name in anew or (name == INDEX and anew)
            return sha256_file(copy) if hashed and other else None

        done, total, digests = 0, sum(sizes.values()), {}
        with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
            try:
                for name, digest in zip(copied, pool.map(write, copied), strict=True):
                    if digest is not None:
                        digests[name] = digest
                    done += sizes[name]
                    if progress is not None:
                        progress(name, done, total)
            except BaseException:
                with gate:  # a thread whose start was interrupted is not waited for by the pool
                    stopped.set()
                    gate.wait_for(lambda: not writing)
                raise
    return digests


def _copied(source: Path, checkpoint: Checkpoint) -> Iterator[str]:
    """Every file that is not hidden and holds no weights beside the checkpoint's."""
    for folder, folders, names in os.walk(source):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(folder, name).relative_to(source).as_posix()
            others = name.startswith(".") or name.endswith(_OTHER_WEIGHTS)
            if path in checkpoint.files or not others:
                yield path


def _inside(directory: Path, name: str) -> Path:
    """The path of a file in a directory; the name must not lead out of it."""
    parts = name.split("/")
    if not all(parts) or ".." in parts or "." in parts or os.path.isabs(name):
        raise OutputError(f"{name!r} is no name of a file within a model's directory")
    return directory / name


@contextmanager
def _finished(target: Path, *, in_place: bool) -> Iterator[Path]:
    """Give a working directory that becomes the target by one rename, or vanishes."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{target} already exists and is not an empty directory; give another")
    try:
        if in_place:
            target.mkdir(exist_ok=True)
            yield target
            return
        with finished(target) as work:
            yield work
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error}") from error


def _linked(source: Path, copy: Path) -> bool:
    try:
        os.link(os.path.realpath(source), copy)
    except OSError:
        return False
    return True


def _copy(source: Path, copy: Path) -> None:
    """Copy a file's content: shared where the file system can, else within the kernel."""
    with source.open("rb") as old, copy.open("xb") as new:
        if not _cloned(old.fileno(), new.fileno()) and not _copied_by_kernel(old, new):
            shutil.copyfileobj(old, new, CHUNK)


def _cloned(old: int, new: int) -> bool:
    """Let a new, empty file share the blocks of an old one."""
    try:
        import fcntl

        fcntl.ioctl(new, _FICLONE, old)
    except (ImportError, OSError):
        return False
    return True


def _copied_by_kernel(old: BinaryIO, new: BinaryIO) -> bool:
    """Copy without passing through this process; False, and nothing written, where it cannot."""
    if not hasattr(os, "copy_file_range"):
        return False
    done, size = 0, os.fstat(old.fileno()).st_size
    while done < size:
        try:
            step = os.copy_file_range(old.fileno(), new.fileno(), size - done, done, done)
        except OSError:
            if done:
                raise
            return False
        if not step:
            raise OSError(errno.EIO, "a file became shorter while it was copied", old.name)
        done += step
    return True


def _overwrite(
    copy: Path,
    checkpoint: Checkpoint,
    changes: Mapping[str, StoredTensor | Callable[[], StoredTensor]],
    one_tensor: threading.Lock,
) -> None:
    """Write tensors at their places in a copied file."""
    with copy.open("r+b") as file:
        for name, change in changes.items():
            info = checkpoint.tensors[name]
            with one_tensor:
                tensor = change if isinstance(change, StoredTensor) else change()
                if (tensor.dtype, tensor.shape) != (info.dtype, info.shape):
                    raise DeltaError(
                        f"{name!r} is stored as {info.dtype} {list(info.shape)}, and "
                        f"{tensor.dtype} {list(tensor.shape)} was given"
                    )
                file.seek(info.begin)
                file.write(tensor.data.data)
                del tensor
