import json
import os
import shutil

import numpy as np
import pytest
import torch

from vitlab.errors import CheckpointError
from vitlab.train import checkpoint
from vitlab.train.checkpoint import KEEP, MANIFEST, MODEL, OPTIMIZER, PROGRESS
from vitlab.train.optimizer import Adam
from vitlab.train.step import train_step

FILES = (MODEL, OPTIMIZER, PROGRESS, MANIFEST)


@pytest.fixture
def two(tmp_path, make_state, make_training, make_batch, snapshot):
    """A folder with the checkpoints of steps 1 and 2, and what the state was at either."""
    settings = make_training(optimizer=Adam())
    state, held = make_state(settings), {}
    for step in range(2):
        train_step(state, make_batch(step).pieces(settings.pieces), settings).read(state)
        held[state.step] = snapshot(state)
        checkpoint.write(tmp_path, state, 100 * state.step)
    return tmp_path, held


@pytest.fixture
def restored(make_state, make_training, snapshot):
    def restore(found):
        state = make_state(make_training(optimizer=Adam()))
        state.restore(found.step, found.parameters, found.optimizer)
        return snapshot(state)

    return restore


def test_what_is_read_is_what_was_written_to_the_bit(two, restored, same):
    folder, held = two
    found = checkpoint.read(folder)
    assert (found.step, found.metrics_bytes, found.rejected) == (2, 200, ())
    assert same(restored(found), held[2])


def test_the_next_update_after_a_restore_is_that_of_the_run(two, make_state, make_training, make_batch, snapshot, same):
    settings = make_training(optimizer=Adam())
    straight = make_state(settings)
    for step in range(4):
        train_step(straight, make_batch(step).pieces(settings.pieces), settings).read(straight)
    state, found = make_state(settings), checkpoint.read(two[0])
    state.restore(found.step, found.parameters, found.optimizer)
    for step in range(2, 4):
        train_step(state, make_batch(step).pieces(settings.pieces), settings).read(state)
    assert same(snapshot(state), snapshot(straight))


def test_an_empty_folder_holds_no_checkpoint(tmp_path):
    assert checkpoint.read(tmp_path) is None


def test_the_newest_stay_and_no_more_than_needed(two, make_state):
    folder, _ = two
    state = make_state()
    for state.step in (5, 12, 100, 1_000_000):
        checkpoint.write(folder, state, 0)
    names = ["step-000100", "step-1000000"]
    assert len(names) == KEEP and [path.name for path in checkpoint.steps(folder)] == names
    assert sorted(path.name for path in folder.iterdir()) == names


def test_the_newest_is_told_by_its_step_and_not_by_the_clock(two):
    folder, _ = two
    os.utime(folder / "step-000002", (0, 0))
    assert checkpoint.read(folder).step == 2


def test_a_checkpoint_is_kept_as_long_as_the_newer_one_is_not_whole(two, make_state, monkeypatch):
    folder, _ = two
    monkeypatch.setattr(checkpoint, "problem", lambda path: "rotten" if path.name == "step-000003" else None)
    state = make_state()
    state.step = 3
    checkpoint.write(folder, state, 0)
    assert [path.name for path in checkpoint.steps(folder)] == ["step-000001", "step-000002", "step-000003"]


def test_what_an_interrupted_write_left_is_swept(two):
    folder, _ = two
    draft = folder / ".step-000003.part"
    draft.mkdir()
    (draft / MODEL).write_bytes(b"half")
    assert checkpoint.read(folder).step == 2
    assert not draft.exists()


def fallback(folder, damaged, restored, same, held):
    """Check that the damage is found, that its file is named, and that the checkpoint before it is used."""
    found = checkpoint.read(folder)
    assert found.step == 1 and same(restored(found), held[1]), damaged
    (reason,) = found.rejected
    suspects = FILES if damaged == MANIFEST else (damaged,)  # a checksum that changed accuses its file
    assert any(str(folder / "step-000002" / name) in reason for name in suspects) and "\n" not in reason, reason


def test_every_flipped_bit_is_found(two, restored, same):
    folder, held = two
    rng = np.random.default_rng(0)
    for number in range(200):
        path = folder / "step-000002" / FILES[number % 4]
        good = path.read_bytes()
        place, bit = rng.integers(len(good)), rng.integers(8)
        path.write_bytes(good[:place] + bytes([good[place] ^ (1 << int(bit))]) + good[place + 1 :])
        fallback(folder, path.name, restored, same, held)
        path.write_bytes(good)


def test_every_cut_file_is_found(two, restored, same):
    folder, held = two
    rng = np.random.default_rng(1)
    for number in range(52):
        path = folder / "step-000002" / FILES[number % 4]
        good = path.read_bytes()
        length = rng.integers(len(good)) if number > 7 else (0 if number < 4 else len(good) - 1)
        path.write_bytes(good[:length])
        fallback(folder, path.name, restored, same, held)
        path.write_bytes(good)


@pytest.mark.parametrize("name", [MODEL, OPTIMIZER])
def test_a_page_of_zeros_is_found(two, restored, same, name):
    folder, held = two
    path = folder / "step-000002" / name
    good = path.read_bytes()
    assert len(good) > 12288
    path.write_bytes(good[:4096] + bytes(4096) + good[8192:])
    fallback(folder, name, restored, same, held)


@pytest.mark.parametrize("name", FILES)
def test_a_deleted_file_is_found(two, restored, same, name):
    folder, held = two
    (folder / "step-000002" / name).unlink()
    fallback(folder, name, restored, same, held)


@pytest.mark.parametrize("name", [MODEL, OPTIMIZER, PROGRESS])
def test_a_file_of_another_step_is_found(two, restored, same, name):
    folder, held = two
    shutil.copy(folder / "step-000001" / name, folder / "step-000002" / name)
    fallback(folder, name, restored, same, held)


@pytest.mark.parametrize("text", ["{}", "[]", "null", '{"model.safetensors": 3}', '"x"'])
def test_a_list_of_checksums_that_is_none_is_found(two, restored, same, text):
    folder, held = two
    (folder / "step-000002" / MANIFEST).write_text(text)
    fallback(folder, MANIFEST, restored, same, held)


def test_a_list_of_checksums_that_leaves_a_file_out_is_found(two, restored, same):
    folder, held = two
    path = folder / "step-000002" / MANIFEST
    sums = json.loads(path.read_text())
    del sums[OPTIMIZER]
    path.write_text(json.dumps(sums))
    fallback(folder, MANIFEST, restored, same, held)


def test_files_swapped_between_two_checkpoints_damage_both_and_both_are_named(two):
    folder, _ = two
    one, other = folder / "step-000001" / MODEL, folder / "step-000002" / MODEL
    first = one.read_bytes()
    shutil.copy(other, one)
    other.write_bytes(first)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(folder)
    said = str(caught.value)
    assert str(one) in said and str(other) in said and "\n" not in said and caught.value.exit_code == 1


def test_a_damaged_checkpoint_is_replaced_when_the_run_passes_it_again(two, make_state, make_training, snapshot, same):
    folder, _ = two
    (folder / "step-000002" / MODEL).write_bytes(b"rot")
    state = make_state(make_training(optimizer=Adam()))
    found = checkpoint.read(folder)
    state.restore(found.step, found.parameters, found.optimizer)
    state.step = 2
    checkpoint.write(folder, state, 0)
    again = checkpoint.read(folder)
    assert again.step == 2 and again.rejected == ()


def test_a_write_never_deletes_itself_for_newer_damaged_ones(two, make_state):
    folder, _ = two
    for step in (5, 6):
        shutil.copytree(folder / "step-000002", folder / f"step-{step:06d}")
        (folder / f"step-{step:06d}" / MODEL).write_bytes(b"rot")
    state = make_state()
    state.step = 3
    checkpoint.write(folder, state, 0)
    assert checkpoint.read(folder).step == 3


def test_one_to_fall_back_on_stays_beside_newer_damaged_ones(two, make_state):
    folder, _ = two
    (folder / "step-000002").rename(folder / "step-000009")
    (folder / "step-000009" / MODEL).write_bytes(b"rot")
    state = make_state()
    for state.step in (3, 4):
        checkpoint.write(folder, state, 0)
    (folder / "step-000004" / MODEL).write_bytes(b"rot")
    assert checkpoint.read(folder).step == 3


def test_integer_and_float_state_keeps_its_type(two):
    found = checkpoint.read(two[0])
    kinds = {name.rsplit("/", 1)[1]: tensor.dtype for name, tensor in found.optimizer.items()}
    assert kinds == {"step": torch.float32, "exp_avg": torch.float32, "exp_avg_sq": torch.float32}
