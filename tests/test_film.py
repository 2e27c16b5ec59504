"""Films of episodes: what browsers need, and what is drawn in."""

import av
import numpy as np
import pytest

from robolearn.film import annotate, write_video


def test_written_video_is_what_browsers_play(tmp_path):
    frames = np.zeros((12, 63, 85, 3), np.uint8)  # odd sizes
    frames[:, :, :40] = (220, 30, 30)
    path = tmp_path / "films" / "ep.mp4"
    write_video(path, frames, fps=20)
    assert [file.name for file in path.parent.iterdir()] == ["ep.mp4"]
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # playable before it is fully loaded
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 20
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
    assert decoded.shape == (12, 64, 86, 3)
    error = np.abs(decoded[:, :63, :85].astype(int) - frames)
    assert error.mean() < 6


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((2, 8, 8), np.uint8),
    ],
)
def test_other_arrays_are_no_video(tmp_path, frames):
    with pytest.raises(ValueError, match="a video takes uint8"):
        write_video(tmp_path / "ep.mp4", frames, fps=20)
    assert not list(tmp_path.iterdir())


def test_annotate_draws_text_and_progress():
    frames = np.full((3, 120, 160, 3), 100, np.uint8)
    progress, success = np.array([0.0, 0.5, 1.0]), np.array([False, False, True])
    film = annotate(
        frames, ["put the red cube in the blue bin"], progress=progress, success=success
    )
    assert (frames == 100).all()
    assert film[0, :10].max() > 200  # letters
    assert film[0, :2].max() < 60  # on a dark strip
    assert (film[:, 60:100] == 100).all()
    white = (film[:, -1] == 255).all(axis=-1)  # (T, W)
    assert white.sum(axis=1).tolist() == [0, 80, 0]
    assert (film[2, -1] == film[2, -1, 0]).all()
    assert film[2, -1, 0].argmax() == 1  # green


def test_long_lines_wrap_instead_of_leaving_the_picture():
    frames = np.zeros((1, 100, 100, 3), np.uint8)
    short, long = (annotate(frames, [text])[0, ..., 0] for text in ("one two", "one two " * 8))
    rows = [np.flatnonzero(image.any(axis=1)).max() for image in (short, long)]
    assert rows[1] > 2 * rows[0]
    assert not long[:, -1].any()


def test_nothing_to_say_leaves_the_frames_alone():
    frames = np.random.default_rng(0).integers(0, 256, (2, 30, 40, 3), np.uint8)
    np.testing.assert_array_equal(annotate(frames, []), frames)
