"""CVAT for video: there and back, the sample, keyframes, hostile files."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import cvat, cvat_video
from maskwright.data.formats.build import Builder
from maskwright.errors import InputError
from maskwright.structures import Record, Taxonomy
from tests.data.formats import draw
from tests.data.formats.hostile import refused
from tests.shared import shared

KEPT = {"names", "splits", "colors", "keys", "sizes", "labels", "masks", "boxes", "crowd", "areas", "tracks", "frames"}


@st.composite
def videos(draw_: st.DrawFn) -> Dataset:
    """Two sequences at most in each split, every other frame; objects come and go."""
    names = tuple(draw_(st.lists(st.sampled_from(draw.ODD_NAMES), min_size=1, max_size=3, unique=True)))
    build = Builder(Path("drawn"), "drawn", Taxonomy(names=names))
    for split in draw_(st.sampled_from([(WHOLE,), ("train", "val")])):
        for sequence in draw_(st.lists(st.sampled_from(["a", "été 2"]), min_size=1, unique=True)):
            size = (draw_(st.integers(2, 7)), draw_(st.integers(2, 7)))
            first = draw_(st.integers(0, 12))
            count = draw_(st.integers(1, 4))
            for frame in range(first, first + 2 * count, 2):
                key = f"{sequence}/frame_{frame:06d}.png"
                build.image(key, Path(key), size, split=split, sequence=sequence, frame=frame)
                for track in draw_(st.lists(st.integers(0, 3), unique=True, max_size=3)):
                    kind = draw_(st.sampled_from(["one", "runs", "box"]))
                    box = draw_(draw.boxes(size)) if kind == "box" else None
                    shape = None
                    if kind == "runs":
                        shape = draw.runs(draw_(draw.masks(size)))
                    elif kind == "one":
                        shape = draw_(draw.polygon_shapes(size, parts=1))
                    name = names[draw_(st.integers(0, len(names) - 1))]
                    build.object(name, shape, "here", box=box, crowd=draw_(st.booleans()), track=track)
    build.strict = False
    return build.done()


def simple(key: str) -> str:
    return key.rpartition("/")[2]


def by_frame(dataset: Dataset) -> dict[tuple[str, str | None, int | None], Record]:
    records = [(split, source.record(i)) for split, source in dataset.splits.items() for i in range(len(source))]
    return {(split, r.sequence, r.frame): r for split, r in records}


@settings(max_examples=40, deadline=None)
@given(videos(), st.booleans())
def test_there_and_back(dataset: Dataset, with_pictures: bool) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        before = by_frame(dataset)
        if with_pictures:
            for (split, _, _), record in before.items():
                path = cvat_video.picture(root, split, record)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", record.size[::-1]).save(path)
        cvat_video.write(root, dataset)
        assert cvat_video.recognizes(root)
        assert not cvat.recognizes(root)
        made = cvat_video.read(root)
        assert made.taxonomy.names == dataset.taxonomy.names
        assert set(made.splits) == set(dataset.splits)
        after = by_frame(made)
        assert set(after) == set(before)
        taxonomies = (dataset.taxonomy, made.taxonomy)
        for where, record in before.items():
            if record.tracks is not None and after[where].tracks is None:
                assert len(record) == len(after[where]) == 0
                continue
            draw.same_record(record, after[where], KEPT - ({"tracks"} if not len(record) else set()), taxonomies)
            assert not with_pictures or after[where].path.is_file()


def test_the_sample() -> None:
    root = shared("data/formats/cvat/for_video")
    assert cvat_video.recognizes(root)
    made = cvat_video.read(root)
    assert made.taxonomy.names == ("klhg", "z U k", "II")
    source = made.splits[WHOLE]
    found = [source.record(i) for i in range(len(source))]
    assert [r.frame for r in found] == [10, 13, 16]
    assert [r.key for r in found] == ["frame_000010.png", "frame_000013.png", "frame_000016.png"]
    assert [r.sequence for r in found] == ["v1"] * 3
    assert [len(r) for r in found] == [1, 0, 0]  # the one box is outside from frame 13 on; points and lines are none
    assert found[0].boxes.tolist() == [[3, 4, 10, 5]]
    assert found[0].size == (20, 25)
    assert made.taxonomy.names[found[0].labels[0]] == "II"
    assert {kind.split("(")[0].strip(): len(where) for kind, where in made.dropped.items()} == {
        "shapes that are no regions": 2,
        "frames without objects and without a picture": 1,
    }
    source.load(0)


META = (
    "<annotations><meta><task><id>1</id><name>clip</name><size>7</size><mode>interpolation</mode>{}"
    "<original_size><width>40</width><height>30</height></original_size></task></meta>"
)


def write(root: Path, tracks: str, more: str = "") -> Path:
    (root / "annotations.xml").write_text(META.format(more) + tracks + "</annotations>")
    return root


def frames(dataset: Dataset) -> list[Record]:
    (source,) = dataset.splits.values()
    return [source.record(i) for i in range(len(source))]


def box(frame: int, x: float, outside: int = 0, more: str = "") -> str:
    place = f'xtl="{x}" ytl="1" xbr="{x + 4}" ybr="5"'
    return f'<box frame="{frame}" outside="{outside}" keyframe="1" {place} {more}/>'


def test_keyframes_are_interpolated(tmp_path: Path) -> None:
    polygon = '<polygon frame="{}" outside="0" keyframe="1" points="{}"/>'
    made = cvat_video.read(
        write(
            tmp_path,
            f'<track id="3" label="a">{box(1, 0)}{box(4, 6)}{box(5, 6, 1)}</track>'
            f'<track id="5" label="b">{polygon.format(0, "0,0;4,0;4,4")}{polygon.format(2, "2,2;6,2;6,8")}'
            f"{polygon.format(4, '0,0;4,0;4,4;0,4')}</track>",
        )
    )
    found = frames(made)
    assert [r.frame for r in found] == list(range(7))
    assert [None if r.tracks is None else r.tracks.tolist() for r in found] == [[5]] + [[3, 5]] * 4 + [[5]] * 2
    assert [r.boxes[0, 0] for r in found[1:5]] == [0, 2, 4, 6]
    rings = [r.shapes[-1] for r in found]
    assert [len(s[0]) for s in rings if isinstance(s, tuple)] == [3, 3, 3, 3, 4, 4, 4]
    assert isinstance(rings[1], tuple)
    assert rings[1][0].tolist() == [[1, 1], [5, 1], [5, 6]]
    assert not found[0].path.exists()


def test_angles_turn_the_short_way(tmp_path: Path) -> None:
    keys = box(0, 10, 0, 'rotation="350"') + box(2, 10, 0, 'rotation="10"')
    tracks = f'<track id="1" label="a">{keys}</track>'
    found = frames(cvat_video.read(write(tmp_path, tracks)))
    assert [type(r.shapes[0]).__name__ for r in found[:3]] == ["tuple", "NoneType", "tuple"]


def test_steps_and_sizes_from_pictures(tmp_path: Path) -> None:
    text = f'<annotations><meta/><track id="x" label="a">{box(2, 0)}{box(4, 6)}</track></annotations>'
    (tmp_path / "annotations.xml").write_text(text)
    with pytest.raises(InputError, match="size of the frames of annotations is not known"):
        cvat_video.read(tmp_path)
    for number in (2, 4):
        Image.new("L", (9, 8)).save(tmp_path / f"{number:03d}.png")
    with pytest.raises(InputError, match=r"1 of 5 images are not on disk: frame 3"):
        cvat_video.read(tmp_path)
    Image.new("L", (9, 8)).save(tmp_path / "3.png")
    found = frames(cvat_video.read(tmp_path))
    assert [r.frame for r in found] == [2, 3, 4]
    assert found[1].boxes.tolist() == [[3, 1, 7, 5]]


def test_images_are_no_video(tmp_path: Path) -> None:
    build = Builder(tmp_path, "toy", Taxonomy(names=("a",)))
    build.image("a.png", tmp_path / "a.png", (3, 3))
    with pytest.raises(InputError, match="needs the sequence and frame"):
        cvat_video.write(tmp_path, build.done())
    for sizes, keys, says in ((((3, 3), (4, 4)), (0, 1), "one size"), (((3, 3), (3, 3)), (1, 1), "each once")):
        build = Builder(tmp_path, "toy", Taxonomy(names=("a",)))
        for number, (size, frame) in enumerate(zip(sizes, keys, strict=True)):
            build.image(f"{number}.png", tmp_path / "a.png", size, sequence="s", frame=frame)
        with pytest.raises(InputError, match=says):
            cvat_video.write(tmp_path, build.done())


def test_a_track_twice_on_a_frame(tmp_path: Path) -> None:
    build = Builder(tmp_path, "toy", Taxonomy(names=("a",)))
    build.image("a.png", tmp_path / "a.png", (3, 3), sequence="s", frame=0)
    for _ in range(2):
        build.object("a", None, "here", box=(0, 0, 1, 1), track=4)
    with pytest.raises(InputError, match="track 4 is on this frame twice"):
        cvat_video.write(tmp_path, build.done())


def test_objects_without_a_track_become_tracks(tmp_path: Path) -> None:
    build = Builder(tmp_path, "toy", Taxonomy(names=("a",)))
    for frame in range(2):
        build.image(f"{frame}.png", tmp_path / "a.png", (9, 9), sequence="s", frame=frame)
        for track in (7, -1):
            build.object("a", None, "here", box=(0, 0, 1, 1), track=track)
    cvat_video.write(tmp_path, build.done())
    found = frames(cvat_video.read(tmp_path))
    assert [r.tracks.tolist() for r in found if r.tracks is not None] == [[7, 8], [7, 9]]


def test_broken_tracks_are_named(tmp_path: Path) -> None:
    high = box(1, 0, 0, 'z_order="x"')
    tracks = (
        f'<track id="1" label="a">{box(99, 0)}</track><track id="2" label="a">{high}</track>'
        '<track id="3" label="a"><polygon frame="1" points="1,1"/><box frame="y"/></track>'
        f'<track id="4">{box(0, 1)}{box(1, 1, 1)}</track>'
    )
    with pytest.raises(InputError) as caught:
        cvat_video.read(write(tmp_path, tracks))
    for says in ("not in its task: track 1", "track 2 frame 1", "track 3 frame 1", "track 3 frame y", "no class name"):
        assert says in str(caught.value)
    assert [len(r) for r in frames(cvat_video.read(tmp_path, strict=False))] == [0] * 7


def test_hostile_files(tmp_path: Path) -> None:
    def no(more: str, says: str, tracks: str = "") -> None:
        refused(lambda: cvat_video.read(write(tmp_path, tracks, more)), says)

    no("<stop_frame>999999999999</stop_frame>", "frames of the task clip")
    no("<stop_frame>9</stop_frame><frame_filter>step=0</frame_filter>", "frames of the task clip")
    no("<start_frame>-4</start_frame>", "frames of the task clip")
    no("<stop_frame>many</stop_frame>", "not an integer")
    no("<subset>../x</subset>", "inside its folder")
    (tmp_path / "annotations.xml").write_text("<annotation/>")
    refused(lambda: cvat_video.read(tmp_path), "root must be annotations")
    (tmp_path / "annotations.xml").unlink()
    refused(lambda: cvat_video.read(tmp_path), r"no annotations\.xml")
