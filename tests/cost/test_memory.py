"""The estimate of memory against what torch really keeps, and what the system says there is."""

from itertools import accumulate

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from vitlab.cost.available import available_memory
from vitlab.cost.memory import Memory, forward_bytes_per_image, gigabytes, training_memory
from vitlab.models.catalog import settings_for
from vitlab.models.classifier import build

CPU = torch.device("cpu")
MODELS = ["Ti/16", "R26+Ti/32", "BiT-R50x1", "ResNet-R50x1", "Axial-Ti/32", "AxialResNet-50"]
HALF = [("Ti/16", True), pytest.param("BiT-R50x1", True, marks=pytest.mark.slow)]


def kept(settings, images, *, half):
    """Return the bytes that a forward pass keeps for the backward pass, the weights left out."""
    model = build(settings).train()
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    values = torch.rand(images, 3, *settings.image_size)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        output = model(values)
    del output
    return sum(size for size, _ in found.values())


@pytest.mark.parametrize(("name", "half"), [*((name, False) for name in MODELS), *HALF])
def test_the_estimate_is_near_what_is_kept(name, half):
    settings = settings_for(name, 10, 64)
    one, three = (kept(settings, images, half=half) for images in (1, 3))
    estimates = [training_memory(settings, images, half=half).activations for images in (1, 3)]
    assert (estimates[1] - estimates[0]) / (three - one) == pytest.approx(1, abs=0.25)


def held(model, images):
    """Return the most bytes that tensors take at once in inference, the weights left out."""
    values = torch.rand(images, 3, *model.settings.image_size)
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        model(values)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return values.nbytes + max(accumulate(changes))


@pytest.mark.parametrize(("name", "side"), [("Ti/16", 64), ("S/32", 96)])
def test_the_estimate_of_inference_is_near_what_is_held(name, side):
    settings = settings_for(name, 10, side)
    model = build(settings).eval()
    one_more = (held(model, 6) - held(model, 2)) / 4
    assert forward_bytes_per_image(settings) / one_more == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("name", MODELS)
def test_recomputing_keeps_less(name):
    settings = settings_for(name, 10, 64)
    plain, remat = (training_memory(settings, 8, remat=remat) for remat in (False, True))
    assert remat.activations < 0.6 * plain.activations
    assert (remat.weights, remat.gradients, remat.optimizer) == (plain.weights, plain.gradients, plain.optimizer)


def test_what_is_counted_besides_activations():
    settings = settings_for("S/16", 10, 32)
    parameters = sum(parameter.numel() for parameter in build(settings).parameters())
    memory = training_memory(settings, 1, moments=6, sums=3)
    assert (memory.weights, memory.gradients, memory.optimizer) == (4 * parameters, 12 * parameters, 6 * parameters)
    assert memory.copies == memory.weights + memory.optimizer
    assert training_memory(settings, 1, on_host=False).copies == 0


def test_memory_in_words():
    assert str(Memory(300_000_000, 52_000_000, 0, 3_000_000_000)) == (
        "3.4 GB (weights 0.3 GB, gradients 52 MB, activations 3.0 GB)"
    )
    assert gigabytes(16.5e9) == "16.5 GB"


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_the_least_of_machine_and_groups_counts(tmp_path):
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    assert available_memory(CPU, proc, groups) is None
    write(proc, meminfo="MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    assert available_memory(CPU, proc, groups) == 8000 * 1024
    (proc / "self").mkdir()
    (proc / "self/cgroup").write_text("0::/box/job\n")
    for group, limit, held in (("box", "5000000", "3000000"), ("box/job", "max", "1000000")):
        (groups / group).mkdir(parents=True, exist_ok=True)
        (groups / group / "memory.max").write_text(f"{limit}\n")
        (groups / group / "memory.current").write_text(f"{held}\n")
    assert available_memory(CPU, proc, groups) == 2_000_000  # that of the group around it
    (groups / "box/memory.stat").write_text("anon 5\ninactive_file 700000\n")
    assert available_memory(CPU, proc, groups) == 2_700_000
    (groups / "box/memory.current").write_text("6000000\n")
    (groups / "box/memory.stat").unlink()
    assert available_memory(CPU, proc, groups) == 0


def test_groups_of_version_1(tmp_path):
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text("5:cpu:/job\n4:memory:/job\n")
    for group, limit in (("memory", 2**63 - 4096), ("memory/job", 4_000_000)):
        (groups / group).mkdir(parents=True, exist_ok=True)
        (groups / group / "memory.limit_in_bytes").write_text(f"{limit}\n")
        (groups / group / "memory.usage_in_bytes").write_text("1500000\n")
    assert available_memory(CPU, proc, groups) == 2_500_000


def test_this_machine_has_memory():
    assert (available_memory(CPU) or 0) > 1 << 20
