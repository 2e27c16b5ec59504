"""Files that are either whole or absent."""

import os

import pytest

from robolearn import files
from robolearn.files import replacing, write_atomic


def test_of_two_that_write_one_file_the_later_wins_and_neither_fails(tmp_path):
    path = tmp_path / "config.json"
    with replacing(path) as first, replacing(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # its block ends last
    assert os.listdir(tmp_path) == [path.name]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    write_atomic(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]
