from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from cases import cases
from clips import HEIGHT, WIDTH, number_in, numbered, write_clip, write_sound
from memory import peak_of

from pipeline.data.loading import load_source
from pipeline.data.sources.video import Sampling, extract_frames
from pipeline.errors import DataError, UsageError

EVERY = Sampling(0)
SCENES = Sampling(0, 0.15)
ENCRYPTED = {
    "encryption_scheme": "cenc-aes-ctr",
    "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
    "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
}


Extracted = dict[str, dict[str, Any]]


def extract(clip: Path, images: Path, sampling: Sampling = EVERY, name: str = "clip") -> Extracted:
    """Write the frames of a clip below a folder; gives their fields by name."""
    found = {}
    for frame, jpeg, fields in extract_frames(clip, name, sampling):
        (images / frame).parent.mkdir(parents=True, exist_ok=True)
        (images / frame).write_bytes(jpeg)
        found[frame] = fields
    return found


def numbers(frames: Extracted) -> list[int]:
    return [each["frame"] for each in frames.values()]


class TestNumbers:
    @cases(
        "suffix, codec, options",
        {
            "mp4 h264": (".mp4", "libx264", {}),
            "mp4 with its index first": (".mp4", "libx264", {"movflags": "faststart"}),
            "mp4 in fragments": (".mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
            "mov h265": (".mov", "libx265", {}),
            "m4v mpeg4": (".m4v", "mpeg4", {}),
            "avi mpeg4": (".avi", "mpeg4", {}),
            "mkv h264": (".mkv", "libx264", {}),
            "webm vp8": (".webm", "libvpx", {}),
        },
    )
    def test_frame_n_is_the_nth(self, tmp_path: Path, suffix: str, codec: str, options: Any) -> None:
        clip = write_clip(tmp_path / f"a{suffix}", 25, codec=codec, **options)
        frames = extract(clip, tmp_path / "images", name="deep/clip")
        assert [number_in(tmp_path / "images" / name) for name in frames] == list(range(25)) == numbers(frames)
        assert list(frames)[7] == "deep/clip/frame_000007.jpg"
        assert list(frames.values())[7] == {"video": f"deep/clip{suffix}", "frame": 7, "time": 0.7, "scene": 0}

    def test_same_clip_same_bytes(self, tmp_path: Path) -> None:
        clip = write_clip(tmp_path / "a.mkv", 12)
        assert list(extract_frames(clip, "a", EVERY)) == list(extract_frames(clip, "a", EVERY))


class TestSampling:
    TIMES = (0, 0.04, 0.3, 0.9, 1.0, 2.7, 2.74, 3.1, 3.999, 4.2)  # one frame in four seconds would be lost at 1 / s

    @pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
    @cases(
        "per_second, taken",
        {
            "1 a second; a thousandth early is in time": (1, [0, 4, 5, 7, 8]),
            "every 2 seconds": (0.5, [0, 5, 8]),
        },
    )
    def test_variable_rate(self, tmp_path: Path, suffix: str, per_second: Any, taken: Any) -> None:
        clip = write_clip(tmp_path / f"a{suffix}", len(self.TIMES), times=self.TIMES)
        frames = extract(clip, tmp_path, Sampling(per_second))
        assert numbers(frames) == taken == [number_in(tmp_path / name) for name in frames]
        assert [each["time"] for each in frames.values()] == pytest.approx([self.TIMES[i] for i in taken])

    @pytest.mark.parametrize("rate", [24, 25, 30, 60])
    def test_the_clips_own_rate_takes_every_frame(self, tmp_path: Path, rate: int) -> None:
        """Matroska rounds 1/30 s to 33 ms, which must not let a frame fall out."""
        assert len(extract(write_clip(tmp_path / "a.mkv", 70, rate=rate), tmp_path, Sampling(rate))) == 70

    def test_time_counts_from_the_first_frame(self, tmp_path: Path) -> None:
        clip = write_clip(tmp_path / "a.mkv", 20, times=[5.7 + i / 10 for i in range(20)])
        assert numbers(extract(clip, tmp_path, Sampling(1))) == [0, 10]

    @cases(
        "sampling, taken, scenes",
        {
            "every frame": (EVERY, list(range(27)), [0] * 9 + [1] * 9 + [2] * 9),
            "the scene between the frames taken counts": (Sampling(0.5), [0, 20], [0, 2]),
            "by scene": (SCENES, [0, 9, 18], [0, 1, 2]),
            "by both": (Sampling(0.5, 0.15), [0, 9, 18, 20], [0, 1, 2, 2]),
            "by the change that is set": (Sampling(1, 0.9), [0, 10, 20], [0, 0, 0]),
        },
    )
    def test_scenes(self, tmp_path: Path, sampling: Any, taken: Any, scenes: Any) -> None:
        colours = ((200, 0, 0), (0, 0, 200), (90, 200, 90))
        pictures = [np.full((HEIGHT, WIDTH, 3), colours[i // 9], np.uint8) for i in range(27)]
        frames = extract(write_clip(tmp_path / "a.mp4", pictures), tmp_path, sampling)
        assert (numbers(frames), [each["scene"] for each in frames.values()]) == (taken, scenes)

    def test_steady_motion_is_one_scene(self, tmp_path: Path) -> None:
        """Stripes that move on: every frame is unlike the one before it, and none is news."""
        wave = (np.arange(WIDTH) // 20 % 2 * 200 + 25).astype(np.uint8)
        pictures = [np.broadcast_to(np.roll(wave, 10 * i)[None, :, None], (HEIGHT, WIDTH, 3)) for i in range(20)]
        clip = write_clip(tmp_path / "a.mp4", map(np.ascontiguousarray, pictures))
        assert numbers(extract(clip, tmp_path, SCENES)) == [0, 1]  # when it sets off

    @pytest.mark.parametrize(
        "values", [(-1,), (float("nan"),), (float("inf"),), (1, -0.1), (1, 1.1), (1, float("nan"))]
    )
    def test_refused(self, values: Any) -> None:
        with pytest.raises(UsageError, match="cannot be sampled"):
            Sampling(*values)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_turned_as_the_clip_says(tmp_path: Path, rotation: int, mirrored: bool) -> None:
    """Anticlockwise by so many degrees, then mirrored, as numpy does it."""
    picture = numbered(0b000000000001)  # one white square, at the top left
    frames = extract(write_clip(tmp_path / "a.mp4", [picture] * 3, rotation=rotation, mirrored=mirrored), tmp_path)
    expected = np.rot90(picture, rotation // 90)
    expected = expected[:, ::-1] if mirrored else expected
    found = cv2.imread(str(tmp_path / next(iter(frames))))
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 6


class TestRefused:
    @cases(
        "write, problem",
        {
            "text": (lambda path: path.write_text("no video at all\n" * 99), "cannot be read as a video"),
            "empty": (lambda path: path.write_bytes(b""), "cannot be read as a video"),
            "sound alone": (write_sound, "no video stream"),
            "encrypted": (lambda path: write_clip(path, 20, **ENCRYPTED), "encrypted"),
            "playlist that opens another file": (
                lambda path: path.write_text(
                    f"ffconcat version 1.0\nfile {write_clip(path.parent / 'b.mp4', 9).name}\n"
                ),
                "cannot be read as a video",
            ),
        },
    )
    def test_no_clip(self, tmp_path: Path, write: Any, problem: str) -> None:
        write(tmp_path / "a.mp4")
        with pytest.raises(DataError, match=rf"({problem})[\s\S]*a\.mp4"):
            extract(tmp_path / "a.mp4", tmp_path / "images")
        assert not list(tmp_path.glob("images/**/*.jpg"))

    @pytest.mark.parametrize("side", [9_000, 50_000])
    def test_huge_frames_before_any_is_decoded(self, tmp_path: Path, side: int) -> None:
        """A bomb of some kilobytes: the size stands in the container's headers and in each JPEG's."""
        data = bytearray(write_clip(tmp_path / "a.avi", 3, codec="mjpeg").read_bytes())
        for start in (data.index(b"strf") + 12, data.index(b"avih") + 40):
            data[start : start + 8] = side.to_bytes(4, "little") * 2
        at = -1
        while (at := data.find(b"\xff\xc0\x00\x11\x08", at + 1)) >= 0:
            data[at + 5 : at + 9] = side.to_bytes(2, "big") * 2
        (tmp_path / "a.avi").write_bytes(data)
        with pytest.raises(DataError, match="over 50000000 pixels"):
            extract(tmp_path / "a.avi", tmp_path / "images")

    def test_no_frame(self, tmp_path: Path) -> None:
        """A whole container whose one frame was taken out."""
        data = write_clip(tmp_path / "a.avi", 1).read_bytes()
        start = data.index(b"movi") + 4
        size = 8 + int.from_bytes(data[start + 4 : start + 8], "little")
        gone = data[:start] + b"JUNK" + (size - 8).to_bytes(4, "little") + bytes(size - 8) + data[start + size :]
        (tmp_path / "a.avi").write_bytes(gone.replace(b"idx1", b"idx0"))
        with pytest.raises(DataError, match="has no frame"):
            extract(tmp_path / "a.avi", tmp_path / "images")


class TestCut:
    @cases(
        "clip, may_lose_index",
        {
            "mp4": ("a.mp4", True),
            "mp4 with its index first": ("faststart.mp4", False),
            "avi": ("a.avi", True),
            "mkv": ("a.mkv", False),
            "webm": ("a.webm", False),
        },
    )
    def test_anywhere(self, tmp_path: Path, clip: str, may_lose_index: bool) -> None:
        """A cut that loses a frame is an error; one in what follows the frames of an mp4 or avi may lose none."""
        options = {"movflags": "faststart"} if "fast" in clip else {}
        data = write_clip(tmp_path / clip, 30, **options).read_bytes()
        whole = 0
        for size in [*range(0, len(data), len(data) // 23), len(data) - 1]:
            (tmp_path / clip).write_bytes(data[:size])
            try:
                decoded = len(extract(tmp_path / clip, tmp_path / f"{size}"))
            except DataError as error:
                problem = str(error)
            else:
                assert decoded == 30
                whole += 1
                continue
            assert re.search(rf"{clip}[\s\S]*get it again, whole", problem)
        assert whole == 0 or (may_lose_index and whole <= 3)

    def test_bytes_after_the_end_and_a_live_recording_without_sizes_do_no_harm(self, tmp_path: Path) -> None:
        for suffix, options in ((".mp4", {}), (".avi", {}), (".mkv", {}), (".mkv", {"live": "1"})):
            clip = write_clip(tmp_path / f"a{suffix}", 9, **options)
            clip.write_bytes(clip.read_bytes() + b"\0" * 50 * (not options))
            assert len(extract(clip, tmp_path / suffix)) == 9


class TestDamaged:
    @cases(
        "suffix, codec, share, size",
        {
            "avi mpeg4": (".avi", "mpeg4", 0.4, 4000),
            "avi mjpeg, which decodes on": (".avi", "mjpeg", 0.4, 4000),
            "mkv h264": (".mkv", "libx264", 0.4, 4000),
            "mp4 h264, which decodes on, with a mark": (".mp4", "libx264", 0.52, 1500),
        },
    )
    def test_in_the_middle(self, tmp_path: Path, suffix: str, codec: str, share: Any, size: Any) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (60, HEIGHT, WIDTH, 3), np.uint8)
        clip = write_clip(tmp_path / f"a{suffix}", noise, codec=codec)
        data = bytearray(clip.read_bytes())
        middle = int(len(data) * share)
        data[middle : middle + size] = bytes(each ^ 0x5A for each in data[middle : middle + size])
        clip.write_bytes(data)
        with pytest.raises(DataError, match=rf"damaged (after [123]\.\d+ s \(frame \d+\)|at byte)[\s\S]*a{suffix}"):
            extract(clip, tmp_path / "images")

    def test_frames_lost_at_the_end(self, tmp_path: Path) -> None:
        """The container is whole, and says that it lasts longer."""
        data = write_clip(tmp_path / "a.avi", 40).read_bytes()
        head, *rest = data.split(b"00dc")
        kept, lost = rest[:20], rest[20:40]
        gone = b"00dc".join([head, *kept]) + b"".join(b"JUNK" + each for each in lost)
        (tmp_path / "a.avi").write_bytes(gone.replace(b"idx1", b"idx0") + data[len(gone) :])
        with pytest.raises(DataError, match=r"cut or damaged after 2\.00 s \(frame 20\): it should last 4\.0 s"):
            extract(tmp_path / "a.avi", tmp_path / "images")

    def test_structure_of_matroska(self, tmp_path: Path) -> None:
        """FFmpeg by itself goes on at the next cluster, and the frames between are lost."""
        clip = write_clip(tmp_path / "a.mkv", 12, cluster_time_limit="300")
        data = clip.read_bytes()
        second = data.index(b"\x1f\x43\xb6\x75", data.index(b"\x1f\x43\xb6\x75") + 1)
        assert len(extract(clip, tmp_path / "whole")) == 12
        for at in range(second, second + 7):  # the cluster's identifier, its length, and its first element's identifier
            clip.write_bytes(data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :])
            with pytest.raises(DataError, match=r"damaged at byte \d+|cut or damaged"):
                extract(clip, tmp_path / str(at))


def test_a_url(tmp_path: Path, server: Any) -> None:
    data = write_clip(tmp_path / "a.mp4", 30).read_bytes()
    server.file("/my%20clip.mp4", data)
    place, digest = tmp_path / "images", hashlib.sha256(data).hexdigest()
    url = f"{server.root}/my%20clip.mp4?token=planted"
    loaded = load_source(url, place, tmp_path / "markup", cache=tmp_path / "cache", sha256=digest)
    assert (loaded.kind, loaded.sha256, loaded.images, loaded.skipped) == ("video", digest, 3, ())
    assert sorted(loaded.fields) == [f"my clip/frame_0000{i}0.jpg" for i in range(3)]
    assert all((place / name).is_file() for name in loaded.fields)
    assert loaded.fields["my clip/frame_000010.jpg"]["video"] == "my clip.mp4"
    assert "planted" not in f"{loaded.url} {loaded.fields}"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    """480 frames more would be 320 MB more, if they were kept."""
    program = """
from pathlib import Path
from pipeline.data.sources.video import Sampling, extract_frames
print(sum(1 for _ in extract_frames(Path(sys.argv[1]), "a", Sampling(0, 0))))"""
    peaks = []
    for count in (32, 512):
        clip = write_clip(tmp_path / f"{count}.mp4", (numbered(i, 640, 360) for i in range(count)), codec="mpeg4")
        decoded, peak = peak_of(program, clip)
        assert decoded == str(count)
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 20, peaks
