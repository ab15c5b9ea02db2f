"""Tar files in the form of WebDataset, their index, and faces that are read from them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aurel.data import ListDataset
from aurel.data.clips import ListClips
from aurel.data.readers import layout_of, read_part
from aurel.data.registry import Part, dataset_info
from aurel.data.shard_files import INDEX, Sample, read_index, read_member, write_shards
from aurel.data.shards import ShardFaces

KEYS = [f"{person}/T1/{frame}" for person in ("F001", "F002", "M003") for frame in (1, 2, 3)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write nine pictures with lists, and the same in two shards."""
    rng = np.random.default_rng(0)
    samples = []
    for index, key in enumerate(KEYS):
        path = tmp_path / "img" / f"{key}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8 + index, 9, 3), dtype=np.uint8)).save(path)
        samples.append(Sample(key, path, {"person": key[:4], "labels": [index % 2, -1]}))
    shards = tmp_path / "shards"
    for folder in (tmp_path / "list", shards / "list"):
        folder.mkdir(parents=True)
        lines = [f"{key}.png" for key in KEYS]
        (folder / "Mine_train_img_path.txt").write_text("\n".join(lines))
        labels = [f"{index % 2} -1" for index in range(len(KEYS))]
        (folder / "Mine_train_label.txt").write_text("\n".join(labels))
    write_shards(shards, "Mine", samples, 2)
    return tmp_path


def samples_of(root: Path) -> list[Sample]:
    return [
        Sample(key, root / "img" / f"{key}.png", {"person": key[:4], "labels": [i % 2, -1]})
        for i, key in enumerate(KEYS)
    ]


def faces(root: Path) -> ShardFaces:
    return ShardFaces(root / "shards", "Mine", None, aus=[1, 2])


def test_items_are_those_of_the_listed_pictures(root: Path) -> None:
    listed = ListDataset(root, "Mine", None, aus=[1, 2])
    packed = faces(root)
    assert len(packed) == 9 and packed.subjects == listed.subjects
    assert packed.keys_of(range(9)) == listed.keys_of(range(9)) == KEYS
    for index in (8, 0, 4, 3):
        a, b = packed[index], listed[index]
        assert np.array_equal(np.asarray(a["image"]), np.asarray(b["image"]))
        assert torch.equal(a["labels"], b["labels"]) and a["subject"] == b["subject"]


def test_webdataset_reads_the_tar_files(root: Path) -> None:
    wds = pytest.importorskip("webdataset")
    urls = sorted(map(str, (root / "shards").glob("*.tar")))
    read = list(wds.WebDataset(urls, shardshuffle=False, empty_check=False))
    assert [sample["__key__"] for sample in read] == KEYS
    assert json.loads(read[4]["json"]) == {"person": "F002", "labels": [0, -1]}
    assert read[4]["png"] == (root / "img" / f"{KEYS[4]}.png").read_bytes()


def test_equal_samples_give_equal_files_and_no_others_are_left(root: Path) -> None:
    folder = root / "shards"
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    write_shards(folder, "Mine", samples_of(root), 5)
    assert len(list(folder.glob("*.tar"))) == 5
    write_shards(folder, "Mine", samples_of(root), 2)
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert after == before


@pytest.mark.parametrize("length", [20, 99, 100, 101, 230])
def test_long_names_keep_their_places(root: Path, length: int) -> None:
    (sample,) = samples_of(root)[:1]
    key = "/".join(["p" * min(length, 120), "q" * max(1, length - 120), "1"])
    write_shards(root / "long", "Mine", [Sample(key, sample.picture, {}), sample], 1)
    place = read_index(root / "long")[f"{key}.png"]
    assert read_member(root / "long", place) == sample.picture.read_bytes()


def test_shards_are_found_by_their_index(root: Path) -> None:
    part = Part("Mine", root=str(root / "shards"), aus=[1, 2])
    assert layout_of(dataset_info("Mine", [1, 2]), part) == "shards"
    assert isinstance(read_part(part), ShardFaces)
    lists = Part("Mine", root=str(root), aus=[1, 2])
    assert layout_of(dataset_info("Mine", [1, 2]), lists) == "lists"


def test_clips_are_cut_from_shards(root: Path) -> None:
    clips = ListClips(faces(root), 2)
    assert len(clips) == 6
    with pytest.raises(ValueError, match="one size"):  # pictures of the fixture differ in size
        clips[0]


def test_incomplete_shards_are_named(root: Path) -> None:
    index = root / "shards" / INDEX
    lines = index.read_text().splitlines()
    index.write_text("\n".join(lines[:-1]))
    with pytest.raises(ValueError, match="Mine_train_img_path.txt, line 9: .* M003/T1/3.png"):
        faces(root)
    index.write_text("\n".join([*lines, "a\tb\tc"]))
    with pytest.raises(ValueError, match="index.tsv, line 10: a line must have a path"):
        faces(root)
    index.write_text("\n".join(lines))
    shard = root / "shards" / "Mine-000001.tar"
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(ValueError, match="Mine-000001.tar must have .* got 1000"):
        faces(root)[8]
    index.unlink()
    with pytest.raises(FileNotFoundError, match="run aurel prepare again"):
        read_part(Part("Mine", root=str(root / "shards"), aus=[1, 2]))


def test_intensities_are_read_where_they_are_the_target(root: Path) -> None:
    levels = "\n".join(["5 -1", "0 3", *["2 2"] * 7])
    (root / "shards/list/Mine_train_intensity.txt").write_text(levels)
    part = Part("Mine", root=str(root / "shards"), aus=[1, 2])
    assert read_part(part).labels[0].tolist() == [0, -1]
    intensity = Part("Mine", root=str(root / "shards"), aus=[1, 2], intensity=True)
    assert read_part(intensity).labels[:2].tolist() == [[5, -1], [0, 3]]
