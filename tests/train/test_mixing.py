import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlab.config import override
from vitlab.data.labels import NONE
from vitlab.errors import SettingsError
from vitlab.train.config import TrainSettings
from vitlab.train.mixing import mix
from vitlab.train.objective import Sigmoid, Softmax, Supervised


@pytest.fixture
def batch(make_model):
    torch.manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
    return make_model(), images, torch.tensor([0, 1, 2, 0, 1, 2])


def numbered(count=5, rows=12, columns=20):
    """Images that show their own number in every pixel."""
    return torch.arange(float(count)).reshape(-1, 1, 1, 1).expand(count, 3, rows, columns)


@pytest.mark.parametrize("objective", [Softmax(mixup=0.1), Softmax(mixup=0.1, label_smoothing=0.1), Sigmoid(mixup=0.1)])
def test_mixup_mixes_images_and_losses_by_the_same_share(batch, monkeypatch, objective):
    model, images, labels = batch
    share, order = torch.tensor(0.25), torch.tensor([5, 4, 3, 2, 1, 0])
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda _: share)
    monkeypatch.setattr(torch, "randperm", lambda n, device: order)
    values = model.image_spec.normalise(images)
    logits = model(0.25 * values + 0.75 * values.flip(0))
    expected = 0.25 * objective.losses(logits, labels) + 0.75 * objective.losses(logits, labels.flip(0))
    torch.testing.assert_close(Supervised(objective)(model, images, labels), expected)


def test_mixup_draws_shares_from_beta(batch):
    model, images, labels = batch
    task = Supervised(Softmax(mixup=0.1))
    torch.manual_seed(0)
    losses = {round(float(task(model, images, labels).detach().sum()), 4) for _ in range(4)}
    assert len(losses) > 1


@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 30), st.sampled_from([0.2, 1.0, 8.0]))
def test_cutmix_puts_one_rectangle_of_the_partner_into_each_image_and_counts_its_pixels(seed, rows, columns, alpha):
    torch.manual_seed(seed)
    images = numbered(4, rows, columns)
    mixed = mix(images, 0.0, alpha)
    foreign = None
    for image, own, partner in zip(mixed.images, images, mixed.partner.tolist(), strict=True):
        assert bool(((image == own) | (image == partner)).all())
        if float(own.flatten()[0]) != partner:
            here = (image == partner).all(dim=0)
            assert foreign is None or torch.equal(foreign, here), "the same place in every image"
            foreign = here
    if foreign is not None:
        assert mixed.share == pytest.approx(1 - foreign.float().mean().item(), abs=1e-6)
        down, across = foreign.any(dim=1).sum(), foreign.any(dim=0).sum()
        assert int(foreign.sum()) == int(down * across)


def test_the_rectangle_of_cutmix_covers_one_minus_the_share_where_it_lies_inside(monkeypatch):
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda _: torch.tensor(0.75))
    shares = []
    for seed in range(200):
        torch.manual_seed(seed)
        shares.append(mix(numbered(2, 40, 60), 0.0, 1.0).share)
    assert min(shares) == pytest.approx(0.75) and 0.85 < max(shares) < 1.0


def test_cutmix_mixes_losses_by_the_share_that_is_left(batch):
    model, images, labels = batch
    task = Supervised(Softmax(cutmix=1.0))
    values = model.image_spec.normalise(images)
    torch.manual_seed(4)
    mixed = mix(values, 0.0, 1.0)
    assert 0 < mixed.share < 1
    logits = model(mixed.images)
    plain = Softmax()
    expected = mixed.share * plain.losses(logits, labels) + (1 - mixed.share) * plain.losses(
        logits, labels[mixed.partner]
    )
    torch.manual_seed(4)
    torch.testing.assert_close(task(model, images, labels), expected)


def test_of_both_each_comes_half_of_the_time():
    images, cut = numbered(6), 0
    for seed in range(400):
        torch.manual_seed(seed)
        mixed = mix(images, 1.0, 1.0).images
        cut += bool((mixed == mixed.round()).all())
    assert 150 < cut < 250


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.3, 0.0), (0.0, 0.3), (0.3, 0.3)])
def test_what_is_mixed_follows_from_the_global_generator(mixup, cutmix):
    images = numbered()
    torch.manual_seed(3)
    first = mix(images, mixup, cutmix)
    torch.manual_seed(3)
    again = mix(images, mixup, cutmix)
    assert torch.equal(first.images, again.images) and first.share == again.share
    assert torch.equal(images, numbered()), "the images themselves stay"


def test_several_labels_are_mixed_as_targets_are(make_model):
    """For the sigmoid loss the loss of mixed targets is the mixed loss."""
    torch.manual_seed(0)
    model, images = make_model(), torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    labels = torch.tensor([[0, 1], [2, NONE], [NONE, NONE], [1, 2]])
    targets = torch.tensor([[1.0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 1, 1]])
    torch.manual_seed(1)
    mixed = mix(model.image_spec.normalise(images), 0.8, 0.0)
    both = mixed.share * targets + (1 - mixed.share) * targets[mixed.partner]
    each = torch.nn.functional.binary_cross_entropy_with_logits(model(mixed.images), both, reduction="none")
    torch.manual_seed(1)
    torch.testing.assert_close(Supervised(Sigmoid(mixup=0.8))(model, images, labels), each.sum(dim=1))


def test_nothing_is_drawn_where_nothing_is_mixed(batch):
    model, images, labels = batch
    torch.manual_seed(0)
    before = torch.get_rng_state()
    Supervised(Softmax())(model, images, labels)
    assert torch.equal(torch.get_rng_state(), before)


def test_pieces_of_one_image_are_refused():
    for change in ("objective.mixup=0.2", "objective.cutmix=1"):
        with pytest.raises(SettingsError, match="pieces of one image have no other"):
            override(TrainSettings(batch_size=4, micro_batch_size=1), [change])
        assert override(TrainSettings(batch_size=4, micro_batch_size=2), [change])
