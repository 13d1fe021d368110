"""Received objects on disk, named by the SHA-256 of their bytes.

A content name is never built from what a peer sent, and two associations that send the same instance
cannot tread on each other.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from triage.edges.disk import sync_folder, write_durably


@dataclass(frozen=True, slots=True)
class Inbox:
    """A folder of received objects. Open it with `open_inbox`."""

    folder: Path

    def keep(self, content: bytes) -> str:
        """Put the bytes on stable storage and return their SHA-256; the same bytes again cost nothing.

        When this returns, file and folder are synced to disk. Raises OSError when they cannot be.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.path(sha256)
        if path.exists():
            # Another association may have renamed it a moment ago and not synced the folder yet.
            sync_folder(path.parent)
        else:
            write_durably(path, lambda file: file.write(content))
        return sha256

    def remove(self, sha256: str) -> None:
        """Delete the bytes of that SHA-256, where they are here."""
        self.path(sha256).unlink(missing_ok=True)

    def path(self, sha256: str) -> Path:
        """Where the bytes of that SHA-256 are."""
        return self.folder / sha256[:2] / f"{sha256}.dcm"

    def read(self, sha256: str) -> bytes:
        """The bytes as received. Raises FileNotFoundError."""
        return self.path(sha256).read_bytes()


def open_inbox(folder: Path) -> Inbox:
    """The inbox in a folder, with all of its subfolders durable."""
    for first_byte in range(256):
        (folder / f"{first_byte:02x}").mkdir(parents=True, exist_ok=True)
    sync_folder(folder)
    sync_folder(folder.parent)
    return Inbox(folder)
