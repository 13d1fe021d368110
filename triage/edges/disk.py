"""Files that are whole and on stable storage, or not there at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

UNFINISHED = ".unfinished-"
"""How names of files begin that are not whole yet; what a crash leaves behind may be deleted."""


def write_durably(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Create `path` with all of its content or not at all, synced to disk with its folder."""
    if not path.parent.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        sync_folder(path.parent.parent)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def remove_unfinished(folder: Path) -> None:
    """Delete what a crash left half-written anywhere below the folder."""
    for leftover in folder.rglob(f"{UNFINISHED}*"):
        leftover.unlink()


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
