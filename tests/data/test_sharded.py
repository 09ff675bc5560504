"""Parquet and WebDataset shards: stored and streamed give the same samples in the same order from any start."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from shard_kit import encoded_image, record, tar_files, write_parquet, write_tar

from convllava.data import sharded
from convllava.data.conversations import ConversationDataset
from convllava.data.faults import BadSampleError, Fault
from convllava.data.files import open_file
from convllava.data.images import open_stored
from convllava.data.mixture import Mixture
from convllava.data.samples import Sample
from convllava.data.sharded import ShardedDataset
from convllava.data.sharded.files import list_shards

LENGTHS = [23, 8, 31]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Use windows smaller than the shards, and an empty cache."""
    for module in (sharded.records, sharded.shuffled):
        monkeypatch.setattr(module, "WINDOW", 8)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(params=["parquet", "tar"])
def shards(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    first = 0
    for shard, length in enumerate(LENGTHS):
        numbers = list(range(first, first + length))
        path = tmp_path / f"part-{shard:02d}.{request.param}"
        write_parquet(path, numbers) if request.param == "parquet" else write_tar(path, tar_files(numbers))
        first += length
    return str(tmp_path / f"part-*.{request.param}")


def _facts(sample: Sample) -> tuple[object, ...]:
    images = [(open_stored(image).size, open_stored(image).getpixel((0, 0))) for image in sample.images]
    return (sample.sample_id, sample.origin, sample.messages, images)


def _drawn(mixture: Mixture, start: int = 0) -> list[object]:
    return [_facts(mixture[index]) for index in range(start, len(mixture))]


@pytest.mark.parametrize("lengths_known", [True, False])
def test_streamed_equals_stored_and_resumes_in_the_middle(
    shards: str, lengths_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not lengths_known:  # as for tars behind a URL
        monkeypatch.setattr(sharded.tar.TarLengths, "__call__", lambda self, shard: None)
        monkeypatch.setattr(sharded.parquet.ParquetLengths, "__call__", lambda self, shard: None)

    def mixture(streaming: bool) -> Mixture:
        return Mixture([ShardedDataset(shards, streaming=streaming)], [1], total=150, seed=4)

    stored = _drawn(mixture(streaming=False))
    assert _drawn(mixture(streaming=True)) == stored
    assert _drawn(mixture(streaming=True), start=71) == stored[71:]  # a fresh start, as after a crash
    ids = [facts[0] for facts in stored]  # type: ignore[index]
    assert sorted(ids[:62]) == sorted(f"s{n}" for n in range(62)) != ids[:62]
    assert sorted(ids[62:124]) == sorted(ids[:62]) and ids[62:124] != ids[:62]


def test_an_open_stream_can_be_pickled(shards: str) -> None:
    shuffled = ShardedDataset(shards, streaming=True).shuffled([3])
    before = [_facts(shuffled[index]) for index in range(30)]
    copy = pickle.loads(pickle.dumps(shuffled))
    assert [_facts(copy[index]) for index in range(30)] == before
    assert _facts(copy[40]) == _facts(shuffled[40])


class _Read(torch.utils.data.Dataset[tuple[object, ...]]):
    def __init__(self, shuffled: sharded.shuffled.ShuffledShards) -> None:
        self.shuffled = shuffled

    def __getitem__(self, index: int) -> tuple[object, ...]:
        return _facts(self.shuffled[index])


def test_forked_workers_open_their_own_streams(shards: str) -> None:
    shuffled = ShardedDataset(shards, streaming=True).shuffled([3])
    shuffled[9]  # the parent is in the middle of a shard
    loader = torch.utils.data.DataLoader(
        _Read(shuffled), sampler=range(40), num_workers=2, batch_size=4, collate_fn=list
    )
    read = [facts for batch in loader for facts in batch]
    alone = ShardedDataset(shards, streaming=True).shuffled([3])
    assert read == [_facts(alone[index]) for index in range(40)]


def test_the_order_of_access_does_not_matter(shards: str) -> None:
    forwards, jumping = (ShardedDataset(shards, streaming=True).shuffled([0]) for _ in range(2))
    order = [50, 3, 130, 4, 61, 62]
    jumped = {index: _facts(jumping[index]) for index in order}
    assert jumped == {index: _facts(forwards[index]) for index in sorted(order)}


def test_epochs_repeat_all_samples(shards: str) -> None:
    mixture = Mixture([ShardedDataset(shards, streaming=True)], [1], epochs=2)
    ids = [mixture[index].sample_id for index in range(len(mixture))]
    assert sorted(ids) == sorted(2 * [f"s{number}" for number in range(62)])


def test_sizes_equal_those_of_the_images(shards: str) -> None:
    shuffled = ShardedDataset(shards, streaming=True).shuffled([1])
    for index in range(62):
        sample = shuffled[index]
        assert shuffled.image_sizes(index) == [open_stored(image).size[::-1] for image in sample.images]
        assert shuffled.text_length(index) == len(f"What is ?it is {sample.sample_id[1:] * 2}")


def test_a_mixture_of_formats_is_drawn_by_weight(shards: str, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(encoded_image(1))
    text = ",".join('{"id": "j%d", "image": "one.png", %s}' % (n, _turns(n)) for n in range(5))  # noqa: UP031
    (tmp_path / "own.json").write_text(f"[{text}]")
    sources = [ShardedDataset(shards, streaming=True), ConversationDataset(tmp_path / "own.json")]
    mixture = Mixture(sources, [3, 1], total=40, seed=2)
    ids = [mixture[index].sample_id for index in range(40)]
    assert sum(name.startswith("j") for name in ids) == 10
    assert [mixture.source_of(index) for index in range(40)] == [int(name.startswith("j")) for name in ids]


def _turns(number: int) -> str:
    import json

    return json.dumps(record(number))[1:-1].split(", ", 1)[1]


@pytest.mark.parametrize("streaming", [True, False])
def test_a_faulty_record_is_named_and_keeps_its_index(tmp_path: Path, streaming: bool) -> None:
    files = {**tar_files([1, 2]), "0003.json": record(3), **tar_files([4])}
    path = write_tar(tmp_path / "a.tar", files)
    message = r"a\.tar, record 2 \(id s3\): 1 <image> placeholders but 0 images"
    if not streaming:
        with pytest.raises(ValueError, match=message):
            ShardedDataset(path)
    dataset = ShardedDataset(path, streaming=streaming, on_bad_sample="skip")
    assert [fault.record for fault in dataset.faults] == ([] if streaming else [2])
    shuffled = dataset.shuffled([0])
    bad = [index for index in range(4) if shuffled.locate(index) == (0, 2)]
    assert (shuffled.image_sizes(bad[0]), shuffled.text_length(bad[0])) == ([], 0)
    with pytest.raises(BadSampleError, match=message):
        shuffled[bad[0]]


def test_captions_and_other_forms_of_records(tmp_path: Path) -> None:
    tar = write_tar(
        tmp_path / "c.tar", {"d/7.jpg": encoded_image(7, "JPEG"), "d/7.txt": "a red square", "d/7.cls": "3"}
    )
    sample = ShardedDataset(tar, streaming=True)[0]
    assert sample.sample_id == "d/7"
    assert [part["type"] for part in sample.messages[0]["content"]] == ["image"]
    assert sample.messages[1]["content"][0]["text"] == "a red square"

    import pyarrow as pa
    from pyarrow import parquet

    parts = [{"type": "image", "text": None}, {"type": "text", "text": "Same?"}, {"type": "image", "text": None}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": [{"type": "text", "text": "no"}]}]
    (tmp_path / "8.png").write_bytes(encoded_image(8))
    table = pa.table({"images": [["8.png", "8.png"], None], "messages": [messages, messages[1:]]})
    parquet.write_table(table, tmp_path / "m.parquet")
    dataset = ShardedDataset(tmp_path / "m.parquet", on_bad_sample="skip")
    assert [part["type"] for part in dataset[0].messages[0]["content"]] == ["image", "text", "image"]
    assert dataset[0].images == (tmp_path / "8.png",) * 2
    assert [fault.kind for fault in dataset.faults] == ["role_order"]


def test_changed_files_are_stored_again(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", tar_files([1]))
    assert len(ShardedDataset(path)) == 1
    write_tar(path, tar_files([1, 2]))
    assert len(ShardedDataset(path)) == 2


def test_wildcards_and_ranges(tmp_path: Path) -> None:
    for name in ("a-00.tar", "a-01.tar", "b.parquet"):
        (tmp_path / name).touch()
    tars = [str(tmp_path / "a-00.tar"), str(tmp_path / "a-01.tar")]
    assert list_shards(tmp_path / "a-{00..01}.tar") == list_shards(tmp_path / "a-*.tar") == tars
    assert list_shards("hf://datasets/x/y/{0..2}.tar")[2] == "hf://datasets/x/y/2.tar"
    with pytest.raises(ValueError, match="shards of several formats"):
        list_shards(tmp_path)
    with pytest.raises(ValueError, match=r"no data file .*c-"):
        open_file(tmp_path / "c-*.parquet")


@pytest.mark.parametrize("streaming", [True, False])
def test_broken_shards_end_in_one_line(tmp_path: Path, streaming: bool) -> None:
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"x\.parquet is not a parquet file"):
        ShardedDataset(tmp_path / "x.parquet", streaming=streaming)
    (tmp_path / "x.tar").write_bytes(b"no tar at all")
    with pytest.raises(ValueError, match=r"x\.tar.*(not a tar archive|cannot read)|cannot read .*x\.tar"):
        ShardedDataset(tmp_path / "x.tar", streaming=streaming)[0]
    other = write_parquet(tmp_path / "y.parquet", [1], extra=[2])
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"question": ["a"]}), other)
    with pytest.raises(ValueError, match="has the columns question; it needs 'conversations' or 'messages'"):
        ShardedDataset(other, streaming=streaming)


def test_an_unknown_length_asks_for_a_count(shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded.tar.TarLengths, "__call__", lambda self, shard: None)
    monkeypatch.setattr(sharded.parquet.ParquetLengths, "__call__", lambda self, shard: None)
    with pytest.raises(ValueError, match=r"how many samples .* has .count., or give max_steps"):
        len(ShardedDataset(shards, streaming=True))
    assert len(ShardedDataset(shards, streaming=True, count=62)) == 62


def test_special_files_and_missing_shards_are_no_shards(tmp_path: Path) -> None:
    """A pipe would be waited for, and a shard that is missing in a range would be left out without a word."""
    os.mkfifo(tmp_path / "p.tar")
    for name in ("p.tar", "p*.tar"):
        with pytest.raises(ValueError, match="no data file"):
            open_file(tmp_path / name, streaming=True)
    for number in (0, 2):
        write_tar(tmp_path / f"a-{number}.tar", tar_files([number]))
    with pytest.raises(ValueError, match=r"no data file .*a-1\.tar, which is in the range .*a-\{0\.\.2\}\.tar"):
        list_shards(tmp_path / "a-{0..2}.tar")
    with pytest.raises(ValueError, match=r"no data file .*b-0"):
        list_shards(tmp_path / "b-{0..9999999}{0..9999999}.tar")


def test_a_text_of_any_size_in_a_tar_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded.tar, "_LARGEST_TEXT", 1000)
    path = write_tar(tmp_path / "a.tar", {"1.txt": "x" * 1001, **tar_files([2])})
    fault, sample = ShardedDataset(path, streaming=True, on_bad_sample="list").records()
    assert isinstance(fault, Fault) and "1.txt has 1001 bytes, at most 1000 are read" in fault.message
    assert isinstance(sample, Sample)


@pytest.mark.parametrize("streaming", [True, False])
def test_damaged_pages_of_parquet_name_the_file(tmp_path: Path, streaming: bool) -> None:
    path = write_parquet(tmp_path / "x.parquet", list(range(300)))
    data = path.read_bytes()
    for damaged in (range(300, len(data) // 2, 97), range(len(data) // 2, len(data) - 8, 97)):  # pages, footer
        path.write_bytes(bytes(byte ^ 255 if place in damaged else byte for place, byte in enumerate(data)))
        with pytest.raises(ValueError, match=r"x\.parquet"):
            list(ShardedDataset(path, streaming=streaming, on_bad_sample="list").records())
