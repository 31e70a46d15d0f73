import pytest
import torch

from vitlab.train.masked import MaskedTask
from vitlab.train.objective import MaskedPatches, Sigmoid, Softmax, Supervised, build_task


@pytest.fixture
def batch(make_model):
    torch.manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
    return make_model(), images, torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("objective", [Softmax(), Softmax(label_smoothing=0.1), Sigmoid()])
def test_a_supervised_task_is_the_loss_of_the_logits(batch, objective):
    model, images, labels = batch
    expected = objective.losses(model(model.image_spec.normalise(images)), labels)
    torch.testing.assert_close(Supervised(objective)(model, images, labels), expected)


def test_each_objective_has_its_task(make_settings):
    settings = make_settings()
    assert isinstance(build_task(MaskedPatches(), make_settings(num_classes=None)), MaskedTask)
    assert list(build_task(Softmax(), settings).parameters()) == []


def test_sigmoid_targets_are_every_label_of_an_image():
    torch.manual_seed(0)
    logits = torch.randn(3, 4)
    labels = torch.tensor([[1, 3], [-1, -1], [0, -1]])
    targets = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=torch.float32)
    for smoothing in (0.0, 0.1):
        smooth = targets * (1 - 2 * smoothing) + smoothing
        each = torch.nn.functional.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
        found = Sigmoid(label_smoothing=smoothing).losses(logits, labels)
        torch.testing.assert_close(found, each.sum(dim=1))


def test_one_label_in_a_row_is_the_same_as_one_label(batch):
    model, images, labels = batch
    task = Supervised(Sigmoid())
    assert torch.equal(task(model, images, labels), task(model, images, labels[:, None]))
