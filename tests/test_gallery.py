"""`robolearn envs --gallery`: a sheet and a video of each task."""

import av
import numpy as np
import pytest
from PIL import Image

from robolearn import cli, gallery
from robolearn.options import EnvsConfig


def test_a_row_and_a_video_for_each_task(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gallery, "VIDEO_EVERY", 6)  # high quality takes its time
    arguments = ["--gallery", str(tmp_path), "--only", "robolearn/Reach-v0"]
    assert cli.main(["envs", *arguments]) == 0
    assert "tasks.png shows the tasks" in capsys.readouterr().out
    with av.open(str(tmp_path / "videos" / "Reach.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) > 3
    assert frames[0].shape == (480, 640, 3)
    assert not np.array_equal(frames[0], frames[-1])
    sheet = np.asarray(Image.open(tmp_path / "tasks.png"))
    left, right = np.array_split(sheet, gallery.COLUMNS, axis=1)
    assert left.std() > 30
    assert (right == gallery.PAPER).all()  # one task, one cell


def test_what_is_not_simulated_has_no_gallery(tmp_path):
    from robolearn.list_envs import main

    with pytest.raises(ValueError, match="'robolearn/SO101-v0' is no simulated task"):
        main(EnvsConfig(gallery=tmp_path, only=("robolearn/SO101-v0",)))
