import pytest
import torch

from vitlab.data.preprocess import ImageSpec
from vitlab.errors import NonFiniteError
from vitlab.train.objective import Softmax
from vitlab.train.optimizer import SGD, Adam
from vitlab.train.schedule import Linear
from vitlab.train.step import train_step


@pytest.mark.parametrize("micro", [1, 2, 4, 8])
def test_micro_batches_make_the_same_update(make_state, make_training, make_batch, snapshot, micro):
    whole, split = make_training(), make_training(micro_batch_size=micro)
    one, other = make_state(whole), make_state(split)
    for step in range(3):
        result, result2 = (
            train_step(one, make_batch(step).pieces(whole.pieces), whole).read(one),
            train_step(other, make_batch(step).pieces(split.pieces), split).read(other),
        )
        assert result2.loss == pytest.approx(result.loss, rel=1e-5)
        assert result2.grad_norm == pytest.approx(result.grad_norm, rel=1e-5)
    for (name, old), new in zip(snapshot(one).items(), snapshot(other).values(), strict=True):
        torch.testing.assert_close(new, old, rtol=1e-5, atol=1e-6, msg=name)


def test_the_update_is_that_of_the_whole_gradient(make_state, make_training, make_batch):
    settings, state, plain = make_training(clip_norm=None), make_state(), make_state()
    batch = make_batch()
    logits = plain.model.train()(plain.model.image_spec.normalise(batch.images))
    loss = torch.nn.functional.cross_entropy(logits, batch.labels)
    loss.backward()
    result = train_step(state, batch.pieces(settings.pieces), settings).read(state)
    assert result.loss == pytest.approx(loss.item(), rel=1e-6) and result.lr == 0.1
    for (name, new), old in zip(state.model.named_parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(new, old - 0.1 * old.grad, rtol=1e-5, atol=1e-7, msg=name)


def test_the_reported_norm_is_that_before_clipping(make_state, make_training, make_batch):
    loose, tight = make_training(clip_norm=None), make_training(clip_norm=1e-3)
    one, other = make_state(), make_state()
    first = train_step(one, make_batch().pieces(1), tight).read(one)
    assert first == train_step(other, make_batch().pieces(1), loose).read(other) and first.grad_norm > 1e-3


def test_the_rate_of_an_update_follows_from_its_step(make_state, make_training, make_batch):
    settings = make_training(schedule=Linear(warmup_steps=2, end=0.0), steps=4)
    state = make_state(settings)
    rates = [train_step(state, make_batch(step).pieces(settings.pieces), settings).read(state).lr for step in range(4)]
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.05]) and state.step == 4


@pytest.mark.parametrize("optimizer", [SGD(), Adam()])
def test_dropout_follows_from_seed_and_step_alone(make_state, make_training, make_batch, snapshot, same, optimizer):
    settings = make_training(optimizer=optimizer)
    one, other = make_state(settings, dropout=0.5), make_state(settings, dropout=0.5)
    for step in range(3):
        train_step(one, make_batch(step).pieces(settings.pieces), settings).read(one)
        torch.manual_seed(step + 1000)  # what others draw from the global stream does not matter
        train_step(other, make_batch(step).pieces(settings.pieces), settings).read(other)
    assert same(snapshot(one), snapshot(other))
    third = make_state(settings, dropout=0.5)
    for step in range(3):
        train_step(third, make_batch(step).pieces(1), settings.model_copy(update={"seed": 1})).read(third)
    assert not same(snapshot(one), snapshot(third))


@pytest.mark.parametrize("optimizer", [SGD(), Adam()])
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_loss_that_is_no_number_leaves_everything_as_it_was_and_names_the_images(
    make_state, make_training, make_batch, snapshot, same, monkeypatch, optimizer, bad
):
    settings = make_training(optimizer=optimizer, micro_batch_size=4)
    state = make_state(settings)
    train_step(state, make_batch(0).pieces(settings.pieces), settings).read(state)
    before, normalise = snapshot(state), ImageSpec.normalise

    def poisoned(spec, images):
        values = normalise(spec, images)
        values[2] = bad
        return values

    monkeypatch.setattr(ImageSpec, "normalise", poisoned)
    with pytest.raises(NonFiniteError) as caught:
        train_step(state, make_batch(1).pieces(settings.pieces), settings).read(state)
    assert same(snapshot(state), before)
    said = str(caught.value)
    assert said.startswith("step 1: loss nan") and "cat/1-2.png" in said and caught.value.remedy


def test_a_gradient_that_is_no_number_is_found_behind_a_finite_loss(
    make_state, make_training, make_batch, snapshot, same, monkeypatch
):
    losses = Softmax.losses

    def steep(objective, logits, labels, weights):
        return losses(objective, logits, labels, weights) + torch.sqrt(logits.sum(dim=1) * 0)

    monkeypatch.setattr(Softmax, "losses", steep)
    settings, state = make_training(), make_state()
    before = snapshot(state)
    with pytest.raises(NonFiniteError, match=r"loss \d.*gradient norm nan"):
        train_step(state, make_batch().pieces(settings.pieces), settings).read(state)
    assert same(snapshot(state), before)


def test_after_a_refused_update_training_goes_on_as_if_it_had_never_been_tried(
    make_state, make_training, make_batch, snapshot, same, monkeypatch
):
    settings, state, untouched = make_training(), make_state(), make_state()
    with monkeypatch.context() as patch:
        patch.setattr(Softmax, "losses", lambda *_: torch.full((8,), float("nan"), requires_grad=True))
        with pytest.raises(NonFiniteError):
            train_step(state, make_batch(0).pieces(settings.pieces), settings).read(state)
    train_step(state, make_batch(1).pieces(settings.pieces), settings).read(state)
    train_step(untouched, make_batch(1).pieces(settings.pieces), settings).read(untouched)
    assert same(snapshot(state), snapshot(untouched))
