import json

from rich.cells import cell_len

from tests.data.test_folder import fill
from vitlab.data.describe import describe
from vitlab.data.digits import Digits
from vitlab.data.folder import Folder
from vitlab.data.open import open_splits


def photos(tmp_path):
    names = [f"train/{name}/{index}.png" for name, count in (("Cat", 12), ("dog", 11)) for index in range(count)]
    root = fill(tmp_path / "photos", *names, "train/dog/notes.txt", "train/dog/.x", "val/cat/1.png", "val/dog/1.png")
    fill(root, "more/cat/x.png", "read.me", ".git/x")
    for place, path in enumerate(sorted(root.rglob("*.png"))):
        path.write_bytes(path.read_bytes() + bytes([place]))
    (root / "train/Cat/0.png").write_bytes((root / "train/dog/0.png").read_bytes())
    (root / "train/Cat/2.png").write_bytes((root / "train/Cat/1.png").read_bytes())
    (root / "val/dog/1.png").write_bytes((root / "train/dog/1.png").read_bytes())
    (root / "train/dog/9.png").write_bytes(b"?")
    return root


def test_what_a_person_should_look_at_comes_most_harmful_first(tmp_path):
    root = photos(tmp_path)
    found = describe("photos", open_splits(str(root)))
    assert found.warnings() == [
        "the same image with different labels: 1 time\n  train/Cat/0.png = train/dog/0.png (Cat, dog)",
        "the same image in more than one split: 1 time\n  train/dog/1.png = val/dog/1.png (dog)",
        "val has classes that train lacks, so that it cannot be evaluated on: cat",
        "classes 'Cat', 'cat' differ only by case, zero padding, spaces or Unicode form; each is a class of its own",
        "not readable as images of train (`vitlab data check` says why): train/dog/9.png",
    ]
    text = "\n".join(found.lines())
    assert "left out beside the splits: more/, read.me\n" in text
    assert "left out of train: hidden or a system file (1): dog/.x" in text
    assert "left out of train: not an image by its suffix (1): dog/notes.txt" in text
    assert (
        "repeats: 1 images are copies of another in their class and split, such as\n  train/Cat/1.png = train/Cat/2.png"
        in text
    )
    assert next(line.split() for line in found.lines() if line.startswith("images ")) == ["images", "23", "2"]
    assert [line.split() for line in found.lines() if line.startswith("  cat")] == [["cat", "0", "1"]]


def test_everything_is_in_the_json(tmp_path):
    root = photos(tmp_path)
    found = json.loads(json.dumps(describe("photos", open_splits(str(root)), workers=2).as_json()))
    assert found == json.loads(json.dumps(describe("photos", open_splits(str(root))).as_json()))  # whoever reads
    train = found["splits"]["train"]
    assert train["counts"] == {"Cat": 12, "dog": 11} and train["sizes"]["width"] == {"min": 2, "median": 2, "max": 2}
    assert train["left_out"] == {"dog/.x": "hidden or a system file", "dog/notes.txt": "not an image by its suffix"}
    assert found["splits"]["val"]["near_empty"] == {"cat": 1, "dog": 1} and found["near_empty_below"] == 10
    assert found["twins"] == [["Cat", "cat"]] and found["untrained"] == {"val": ["cat"]}
    assert found["duplicates"]["counts"] == {"repeats": 1, "conflicts": 1, "leaks": 1}
    assert found["duplicates"]["leaks"][0]["keys"] == ["train/dog/1.png", "val/dog/1.png"]


def test_of_many_classes_the_most_and_the_least_frequent_are_shown(tmp_path):
    names = [f"{number:02d}x/{index}.png" for number in range(30) for index in range(40 - number)]
    found = describe("many", {"all": Folder(fill(tmp_path, *names))})
    shown = [line.split() for line in found.lines() if line.startswith("  ")][1:12]
    assert [row[0] for row in shown] == ["00x", "01x", "02x", "03x", "04x", "…", *(f"{n}x" for n in range(25, 30))]
    assert shown[0] == ["00x", "40"] and shown[5] == ["…", "20", "more", "…"] and shown[-1] == ["29x", "11"]


def test_images_without_files_can_be_described_too():
    found = describe("digits", {"all": Digits()})
    split = found.splits["all"]
    assert split.images == 1797 and split.formats == {"pixels": 1797} and split.grey == 1797
    assert found.warnings() == [] and found.duplicates.counts == {"repeats": 0, "conflicts": 0, "leaks": 0}


def test_ready_splits_are_named_and_what_is_undivided_is_all_of_it(tmp_path):
    fill(tmp_path, "s/test/a/1.png", "s/train/a/1.png", "s/train/b/1.png", "t/train/a/1.png", "t/train/b/1.png")
    assert list(open_splits(str(tmp_path / "s"))) == ["train", "test"]
    assert {name: len(source) for name, source in open_splits(str(tmp_path / "t")).items()} == {"train": 2}
    assert {name: len(source) for name, source in open_splits("digits").items()} == {"all": 1797}


def test_columns_are_straight_where_letters_are_wide(tmp_path):
    found = describe("wide", {"all": Folder(fill(tmp_path, "汉字/1.png", "cat/1.png", "\U0001f431/1.png"))})
    rows = [line for line in found.lines() if line.endswith("  1") and line.startswith("  ")]
    assert len(rows) == 3 and len({cell_len(row) for row in rows}) == 1
