"""Every state that a disk may be in after a crash while a checkpoint is written, computed and read.

A power cut keeps what was flushed. Of the other changes to folders, names that appeared, went or were replaced, it keeps any: each
subset is a state that some file system may leave. None may hold anything but an old checkpoint or the new one.
"""

from itertools import combinations

import pytest

from tests.faults.test_checkpoint_write import whole, write
from vitlab import files
from vitlab.errors import CheckpointError
from vitlab.train import checkpoint


class Disk:
    """Follows the operations of `vitlab.files` below `root` as changes of names in folders, flushed or not."""

    def __init__(self, monkeypatch, root):
        self.root = root
        self.contents = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        self.folders = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_dir()}
        self.log = []
        for name in ("write_bytes", "flush_folder", "rename", "make_folder", "remove"):
            monkeypatch.setattr(files, name, self._followed(name, getattr(files, name)))

    def _followed(self, name, real):
        def operation(path, *rest):
            self.log += self._changes(name, path, *rest)
            real(path, *rest)

        return operation

    def _changes(self, name, path, *rest):
        place = path.relative_to(self.root)
        folder = str(place.parent)
        match name:
            case "write_bytes":  # its data are flushed, its name is not
                yield ("change", folder, "", place.name, rest[0])
            case "make_folder":
                yield ("change", folder, "", place.name, None)
            case "rename":
                yield ("change", folder, place.name, rest[0].name, place.name)
            case "flush_folder":
                yield ("flush", str(place))
            case "remove" if path.is_dir():
                for file in sorted(path.iterdir()):
                    yield ("change", str(place), file.name, "", None)
                yield ("change", folder, place.name, "", None)
            case "remove" if path.exists():
                yield ("change", folder, place.name, "", None)

    def states(self):
        """Yield the tree of every state that a crash at any moment may leave, each once: {path: bytes, or None for a folder}."""
        start = dict.fromkeys(self.folders) | self.contents
        seen = set()
        for moment in range(len(self.log) + 1):
            done = self.log[:moment]
            kept = {index for index, one in enumerate(done) if one[0] == "change" and self._flushed(done, index)}
            loose = [index for index, one in enumerate(done) if one[0] == "change" and index not in kept]
            for count in range(len(loose) + 1):
                for lucky in combinations(loose, count):
                    tree = applied(start, [done[index] for index in sorted({*kept, *lucky})])
                    mark = hash(tuple(sorted(tree.items())) if tree else ())
                    if mark not in seen:
                        seen.add(mark)
                        yield tree

    @staticmethod
    def _flushed(done, index):
        return any(one == ("flush", done[index][1]) for one in done[index + 1 :])


def applied(tree, changes):
    """Return the tree after those changes of names; what happens in a folder that never came is lost with it."""
    tree = dict(tree)
    for _, folder, gone, come, what in changes:
        if folder != "." and folder not in tree:
            continue
        path = lambda name, folder=folder: name if folder == "." else f"{folder}/{name}"  # noqa: E731
        if gone and come:  # a rename
            moved = {key: value for key, value in tree.items() if key == path(gone) or key.startswith(path(gone) + "/")}
            for key, value in moved.items():
                del tree[key]
                tree[path(come) + key.removeprefix(path(gone))] = value
        elif gone:
            for key in [key for key in tree if key == path(gone) or key.startswith(path(gone) + "/")]:
                del tree[key]
        else:
            tree[path(come)] = what
    return tree


def made(tree, root):
    for path, data in tree.items():
        place = root / path
        if data is None:
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
    return root


@pytest.fixture
def crashed(tmp_path, monkeypatch):
    """Return a function that does `work` in a folder with the checkpoints of `steps`, and reads every state of a crash in it."""

    def check(steps, work):
        folder = tmp_path / "checkpoints"
        folder.mkdir()
        for step in steps:
            write(folder, step)
        with monkeypatch.context() as patch:
            disk = Disk(patch, folder)
            work(folder)
        found = []
        for number, tree in enumerate(disk.states()):
            try:
                read = checkpoint.read(made(tree, tmp_path / f"state-{number}"))
                found.append(None if read is None else whole(read))
            except CheckpointError:
                found.append("lost")
        return found

    return check


def damaged(folder):
    """Write step 20 where a damaged checkpoint of it is."""
    path = folder / "step-000020" / checkpoint.MODEL
    path.write_bytes(path.read_bytes()[:-1])
    write(folder, 20)


@pytest.mark.parametrize(
    ("steps", "work", "old", "new"),
    [
        ((), lambda folder: write(folder, 10), None, 10),
        ((10,), lambda folder: write(folder, 20), 10, 20),
        ((10, 20), lambda folder: write(folder, 30), 20, 30),
        ((10, 20), damaged, 10, 20),
    ],
    ids=["the first", "the second", "one that removes the oldest", "one in the place of a damaged one"],
)
def test_no_crash_leaves_anything_but_the_old_state_or_the_new_one(crashed, tmp_path, steps, work, old, new):
    found = crashed(steps, work)
    assert len(found) > 15 and set(found) == {old, new}
    assert whole(checkpoint.read(tmp_path / "checkpoints")) == new


def test_a_protocol_with_a_hole_is_found_out(crashed, monkeypatch):
    """Where the old checkpoint goes before the new one's name is flushed a power cut may leave neither."""
    monkeypatch.setattr(checkpoint, "KEEP", 1)

    def without_the_last_flush(folder):
        followed = files.flush_folder
        files.flush_folder = lambda path: followed(path) if path.name.startswith(".") else None
        try:
            write(folder, 20)
        finally:
            files.flush_folder = followed

    assert {None, "lost"} & set(crashed((10,), without_the_last_flush))
