"""Bytes on stable storage."""

import hashlib
from pathlib import Path

import pytest

from triage.edges.disk import write_durably
from triage.edges.inbox import Inbox


def test_what_is_kept_is_read_back_under_its_sha256(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox")
    sha256 = inbox.keep(b"some bytes")
    assert sha256 == hashlib.sha256(b"some bytes").hexdigest()
    assert inbox.read(sha256) == b"some bytes"


def test_the_same_bytes_again_make_no_second_file(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    assert inbox.keep(b"twice") == inbox.keep(b"twice")
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(file: object) -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        write_durably(tmp_path / "a" / "b", fail)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"\.dcm"):
        Inbox(tmp_path).read("0" * 64)
