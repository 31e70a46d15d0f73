import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vitlab.data.duplicates import digest_of, find_duplicates
from vitlab.data.source import Example


def digests(source):
    return np.stack([np.frombuffer(digest_of(source.read(index)), np.uint8) for index in range(len(source))])


def find(**sources):
    return find_duplicates(sources, {name: digests(source) for name, source in sources.items()})


def test_copies_are_told_apart_by_what_they_mean(make_source):
    train = make_source(images=[b"r", b"c", b"r", b"l", b"c", b"b", b"r"], labels=[0, 0, 0, 1, 1, 2, 0])
    val = make_source(images=[b"l", b"new", b"b"], labels=[1, 0, 0])
    found = find(train=train, val=val)
    assert found.counts == {"repeats": 1, "conflicts": 2, "leaks": 2} and found.extra == 2
    (repeat,) = found.repeats
    assert (repeat.count, repeat.keys, repeat.classes) == (3, ("image-0", "image-2", "image-6"), ("ant",))
    assert [group.classes for group in found.conflicts] == [("ant", "bee"), ("cat", "ant")]
    assert [group.splits for group in found.leaks] == [("train", "val"), ("train", "val")]
    assert found.warnings() == [
        "the same image with different labels: 2 times\n  image-1 = image-4 (ant, bee)\n  image-5 = image-2 (cat, ant)",
        "the same image in more than one split: 2 times\n  image-3 = image-0 (bee)\n  image-5 = image-2 (cat, ant)",
    ]


def test_labels_of_splits_are_compared_by_name(make_source):
    train = make_source(images=[b"1", b"2"], labels=[0, 1], classes=("a", "b"))
    val = make_source(images=[b"2", b"1"], labels=[0, 1], classes=("b", "c"))
    found = find(train=train, val=val)
    assert [group.classes for group in found.conflicts] == [("a", "c")] and found.counts["leaks"] == 2


def test_two_classes_of_one_name_are_two(make_source):
    source = make_source(images=[b"1", b"1", b"2", b"2"], labels=[0, 1, 1, 1], classes=("crane", "crane"))
    found = find(train=source)
    assert found.counts == {"repeats": 1, "conflicts": 1, "leaks": 0}
    assert [group.classes for group in found.conflicts + found.repeats] == [("crane", "crane (2)"), ("crane (2)",)]


def test_several_labels_are_compared_as_a_set(make_source):
    source = make_source(images=[b"1", b"1", b"2", b"2"], labels=[0] * 4)
    source.labels = np.array([[0, 2], [2, 0], [1, -1], [1, 2]])
    source.read = lambda index: Example(source.images[index], 0, f"image-{index}")
    found = find(all=source)
    assert found.counts == {"repeats": 1, "conflicts": 1, "leaks": 0}
    assert found.conflicts[0].classes == ("bee", "cat")


def test_empty_files_are_like_no_other_and_pixels_by_their_shape_too(make_source):
    assert find(all=make_source(images=[b"", b""], labels=[0, 1])).counts["conflicts"] == 0
    flat, tall = np.zeros((1, 4, 3), np.uint8), np.zeros((4, 1, 3), np.uint8)
    assert digest_of(Example(flat, 0, "x")) != digest_of(Example(tall, 0, "x"))
    assert find(all=make_source(images=[flat, flat.copy(), tall], labels=[0, 0, 0])).extra == 1


def test_a_thousand_groups_are_named_and_all_are_counted(make_source):
    images = [str(index // 2).encode() for index in range(2400)] + [b"0"] * 50
    found = find(all=make_source(images=images, labels=[0] * 2450))
    assert found.counts["repeats"] == 1200 and len(found.repeats) == 1000 and found.extra == 1250
    assert found.repeats[0].count == 52 and len(found.repeats[0].keys) == 10
    assert str(found.repeats[0]).endswith("image-2400 = image-2401 = image-2402 and 47 more")


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2), st.booleans()), min_size=1, max_size=60))
def test_the_counts_are_those_of_a_plain_count(rows):
    class Rows:
        def __init__(self, members):
            self.members, self.classes = members, ("a", "b", "c")
            self.labels = np.array([label for _, label, _ in members], np.int64)

        def __len__(self):
            return len(self.members)

        def read(self, index):
            content, label, _ = self.members[index]
            return Example(bytes([content]), label, str(index))

    sides = {"train": [row for row in rows if row[2]], "val": [row for row in rows if not row[2]]}
    found = find(**{name: Rows(members) for name, members in sides.items() if members})
    expected = {"repeats": 0, "conflicts": 0, "leaks": 0}
    for content in {row[0] for row in rows}:
        group = [row for row in rows if row[0] == content]
        conflict, leak = len({row[1] for row in group}) > 1, len({row[2] for row in group}) > 1
        expected["conflicts"] += conflict
        expected["leaks"] += leak
        expected["repeats"] += len(group) > 1 and not conflict and not leak
    assert found.counts == expected
