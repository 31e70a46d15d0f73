"""Whether a run fits: what is said before, what is said after, and the search for the largest piece."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlab.cli.options import parse_batch_size
from vitlab.config import override
from vitlab.errors import NotEnoughMemoryError, SettingsError
from vitlab.studies import resources
from vitlab.studies.plan import Asked, divided_as, plan_pretrain
from vitlab.studies.resources import explained, is_out_of_memory, largest, largest_micro_batch, memory_lines, memory_of

GB = 10**9


@pytest.fixture(scope="module")
def settings():
    return plan_pretrain(Asked(data="digits", model="Ti/4", image_size=32, batch_size=64, device="cpu")).settings


@given(st.integers(1, 4096), st.integers(0, 5000))
def test_the_largest_size_that_fits_is_found_without_trying_much_larger_ones(total, limit):
    sizes, tried = [size for size in range(1, total + 1) if total % size == 0], []
    found = largest(sizes, lambda size: tried.append(size) or size <= limit)
    assert found == max((size for size in sizes if size <= limit), default=None)
    next_one = min((size for size in sizes if size > limit), default=0)
    assert all(size <= max(2 * limit, next_one) for size in tried)


def test_a_run_that_fits_is_said_in_a_line(settings, monkeypatch):
    monkeypatch.setattr(resources, "available_memory", lambda _: 16 * GB)
    (line,) = memory_lines(settings)
    assert line.startswith("about ") and " of 16.0 GB: weights 22 MB, gradients 22 MB, optimizer 43 MB" in line
    monkeypatch.setattr(resources, "available_memory", lambda _: None)
    assert len(memory_lines(settings)) == 1


def test_a_run_that_does_not_fit_is_told_what_needs_less(settings, monkeypatch):
    monkeypatch.setattr(resources, "available_memory", lambda _: GB // 2)
    line, verdict, *flags = memory_lines(settings)
    assert " of 0.5 GB" in line and verdict.startswith("more than there is")
    assert [flag.split(":")[0].split("=")[0] for flag in flags] == [
        "--set train.micro_batch_size", "--remat", "--precision bfloat16", "--image-size 16",
    ]  # fmt: skip
    assert all(": about " in flag for flag in flags)
    piece = int(flags[0].split("=")[1].split(":")[0])
    train = settings.train.model_copy(update={"micro_batch_size": piece})
    assert memory_of(settings.model_copy(update={"train": train})).total < GB // 2


def test_the_largest_piece_for_a_cpu_follows_from_the_estimate(settings, monkeypatch):
    for there, expected in ((100 * GB, 64), (GB // 2, 16)):
        monkeypatch.setattr(resources, "available_memory", lambda _, there=there: there)
        assert largest_micro_batch(settings) == expected
    monkeypatch.setattr(resources, "available_memory", lambda _: 1000)
    with pytest.raises(NotEnoughMemoryError, match="--batch-size auto: not even one image at a time fits"):
        largest_micro_batch(settings)


@pytest.mark.parametrize(("batch", "piece"), [(64, 8), (24, 3), (12, 3), (6, 3)])
def test_an_exact_run_has_the_same_pieces_on_any_number_of_processes(settings, monkeypatch, batch, piece):
    monkeypatch.setattr(resources, "available_memory", lambda _: 100 * GB)
    exact = override(settings, [f"train.batch_size={batch}", "train.exact=true"])
    for world in (1, 2):
        assert largest_micro_batch(exact, world) == piece


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12"),
    ],
)
def test_want_of_memory_is_told_from_other_failures(error, settings):
    assert is_out_of_memory(error)
    said = "out of memory on cpu with 64 images at a time of 32×32 pixels"
    with pytest.raises(NotEnoughMemoryError, match=said), explained(settings):
        raise error
    with pytest.raises(RuntimeError, match="shape"), explained(settings):
        raise RuntimeError("shape mismatch")


def test_a_process_whose_memory_ends_says_so_in_a_few_lines(tmp_path):
    code = (
        "import resource, sys; import vitlab.__main__ as main; import torch, vitlab.studies.run, vitlab.cli.training\n"
        "held = next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmSize')) * 1024\n"
        "resource.setrlimit(resource.RLIMIT_AS, (held + 800_000_000, -1)); sys.exit(main.run())"
    )
    asked = ["pretrain", "digits", "--model", "Ti/4", "--image-size", "96", "--steps", "2", "--device", "cpu"]
    asked += ["--workers", "0", "--set", "train.micro_batch_size=256", "--out", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-c", code, *asked], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "more than there is; it may end for want of memory" in done.stderr
    said = done.stderr[done.stderr.index("error: ") :].splitlines()
    assert said[0].startswith("error: training: out of memory on cpu with 256 images at a time of 96×96 pixels")
    assert [line.split(":")[0].strip().split("=")[0] for line in said[1:]][:2] == [
        "--set train.micro_batch_size",
        "--remat",
    ]


def test_options_say_how_steps_are_computed(monkeypatch):
    plain = Asked(data="digits", device="cpu")
    train = plan_pretrain(plain).settings.train
    assert (train.precision, train.remat, train.compile) == ("float32", False, False)
    asked = replace(plain, precision="bfloat16", remat=True, compile=True)
    planned = plan_pretrain(asked)
    train = planned.settings.train
    assert (train.precision, train.remat, train.compile) == ("bfloat16", True, True)
    assert "train.remat: false -> true" in planned.differences
    monkeypatch.setattr("vitlab.studies.plan.best_precision", lambda _: "bfloat16")
    assert plan_pretrain(plain).settings.train.precision == "bfloat16"
    assert plan_pretrain(replace(plain, precision="float32")).settings.train.precision == "float32"


def test_auto_keeps_the_batch_and_writes_down_the_piece_it_found(monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "available_memory", lambda _: GB // 2)
    asked = Asked(data="digits", model="Ti/4", image_size=32, device="cpu", batch_size="auto")
    train = plan_pretrain(asked).settings.train
    assert (train.batch_size, train.micro_batch_size) == (256, 16)
    (tmp_path / "config.json").write_text('{"train": {"micro_batch_size": 32}}')
    assert plan_pretrain(divided_as(asked, tmp_path)).settings.train.micro_batch_size == 32  # no second search


@pytest.mark.parametrize(("text", "number"), [(None, None), ("auto", "auto"), ("64", 64)])
def test_a_batch_size_is_a_number_or_auto(text, number):
    assert parse_batch_size(text) == number


@pytest.mark.parametrize("text", ["0", "-3", "many", "1.5", ""])
def test_other_batch_sizes_are_refused(text):
    with pytest.raises(SettingsError, match=r"--batch-size: '.*' is no number of images; write 256, or auto"):
        parse_batch_size(text)
