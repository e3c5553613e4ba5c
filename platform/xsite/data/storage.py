"""Writing many files as one: all or nothing, on a local disk or behind any fsspec URL.

A *tree* is a mapping from relative path to bytes. One file of it, the *seal*, is written last and removed first: a
reader that finds the seal finds everything. On a local disk the tree is moreover built in a hidden sibling folder and
renamed into place.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from xsite.errors import StoreError

Tree = Mapping[str, bytes]
FULL = (errno.ENOSPC, errno.EDQUOT)
STALE_S = 3600.0  # a hidden folder that old belongs to a process that was killed


def open_filesystem(store: str | os.PathLike[str]) -> tuple[Any, str]:
    """Filesystem and root folder behind a path or URL.

    Raises
    ------
    StoreError
        The URL's protocol is unknown, or needs a package that is not installed.
    """
    try:
        fs, root = fsspec.core.url_to_fs(os.fspath(store))
    except (ValueError, ImportError) as error:
        raise StoreError(
            f"store {os.fspath(store)!r}: {error}; use a folder, or a URL such as s3://bucket/x"
        ) from error
    return fs, str(root).rstrip("/")


def write_tree(fs: Any, folder: str, tree: Tree, *, seal: str) -> None:
    """Replace ``folder`` by ``tree``: completely, or not at all.

    Raises
    ------
    StoreError
        No space left, or the place cannot be written to. Nothing half-written stays behind.
    """
    with _explained(folder, sum(map(len, tree.values()))):
        if isinstance(fs, LocalFileSystem):
            _write_local_tree(Path(folder), tree)
        else:
            _write_remote_tree(fs, folder, tree, seal)


def write_file(fs: Any, path: str, content: bytes) -> None:
    """Write or replace one file atomically.

    Raises
    ------
    StoreError
        No space left, or the place cannot be written to.
    """
    with _explained(path, len(content)):
        if not isinstance(fs, LocalFileSystem):
            fs.pipe_file(path, content)  # one object: the store itself makes it appear whole
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        try:
            _write_bytes(partial, content)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


def read_tree(fs: Any, folder: str, *, seal: str) -> dict[str, bytes] | None:
    """Every file below ``folder``, or None where the seal is absent."""
    if not fs.exists(f"{folder}/{seal}"):
        return None
    try:
        if isinstance(fs, LocalFileSystem):
            files = (p for p in Path(folder).rglob("*") if p.is_file())
            return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}
        found = cast("dict[str, bytes]", fs.cat(fs.find(folder)))
    except OSError as error:
        raise StoreError(f"{folder}: cannot be read: {error}; is another process replacing it?") from error
    prefix = fs._strip_protocol(folder).rstrip("/") + "/"
    return {fs._strip_protocol(path).removeprefix(prefix): content for path, content in found.items()}


def _write_local_tree(target: Path, tree: Tree) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(target)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    old = partial.with_name(partial.name + ".old")
    try:
        for name, content in tree.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_bytes(path, content)
        if target.exists():
            target.rename(old)
        partial.rename(target)
    except BaseException:  # Ctrl-C too: the former recording comes back, the new one leaves no trace
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _write_bytes(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # without it, a power cut after the rename could leave empty files


def _remove_stale(target: Path) -> None:
    for leftover in target.parent.glob(f".{target.name}.*"):
        if time.time() - leftover.stat().st_mtime > STALE_S:
            shutil.rmtree(leftover, ignore_errors=True)


def _write_remote_tree(fs: Any, folder: str, tree: Tree, seal: str) -> None:
    """Object stores cannot rename: take the seal away, replace the rest, put the seal back last."""
    try:
        if fs.exists(f"{folder}/{seal}"):
            fs.rm_file(f"{folder}/{seal}")
        if fs.exists(folder):
            fs.rm(folder, recursive=True)
        fs.makedirs(folder, exist_ok=True)
        fs.pipe({f"{folder}/{name}": content for name, content in tree.items() if name != seal})
        fs.pipe_file(f"{folder}/{seal}", tree[seal])
    except BaseException:
        if fs.exists(folder):
            fs.rm(folder, recursive=True)
        raise


@contextmanager
def _explained(path: str, n_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        size = f"{n_bytes / 1e6:.1f} MB"
        if error.errno in FULL:
            raise StoreError(
                f"{path}: no space left while writing {size}; free some space or choose another --store, then run the "
                "same command again: what is complete is skipped, and nothing half-written is left"
            ) from error
        raise StoreError(f"{path}: cannot write {size}: {error}; check that the place exists and is yours") from error
