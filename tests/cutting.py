"""Interruptions in the middle of a dataset."""

from contextlib import contextmanager

import pytest

from robolearn.episodes import EpisodeWriter


@contextmanager
def cut_off_at(episode, monkeypatch):
    """Whatever writes so many episodes is interrupted before the last of them."""
    written, append = [], EpisodeWriter.append

    def interrupted(writer, finished):
        written.append(finished.seed)
        if len(written) == episode:
            raise KeyboardInterrupt
        return append(writer, finished)

    with monkeypatch.context() as patched:
        patched.setattr(EpisodeWriter, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            yield
