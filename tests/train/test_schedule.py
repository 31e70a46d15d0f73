import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitlab.train.config import TrainSettings
from vitlab.train.schedule import Cosine, Linear, Staircase

lengths = st.tuples(st.integers(1, 10**5), st.integers(0, 10**5)).map(lambda pair: (pair[0] + pair[1], pair[1]))


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.0), (1, 0.03), (5, 0.15), (10, 0.3), (60, 0.15), (35, 0.25606601717798214), (110, 0.0)]
)
def test_cosine_climbs_to_the_base_rate_then_falls_as_half_a_cosine_to_zero(step, expected):
    assert Cosine(warmup_steps=10).rate(step, 110, 0.3) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("step", "expected"), [(0, 0.0), (5, 0.15), (10, 0.3), (60, 0.2), (110, 0.1)])
def test_linear_climbs_to_the_base_rate_then_falls_in_a_line_to_the_end_rate(step, expected):
    assert Linear(warmup_steps=10, end=0.1).rate(step, 110, 0.3) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.0), (5, 0.15), (10, 0.3), (20, 0.3), (21, 0.03), (40, 0.03), (41, 0.003), (99, 0.003)]
)
def test_staircase_climbs_to_the_base_rate_and_falls_by_a_factor_after_each_boundary(step, expected):
    assert Staircase(warmup_steps=10, boundaries=(20, 40)).rate(step, 100, 0.3) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", [Cosine, Linear, Staircase])
def test_without_warm_up_the_first_update_has_the_base_rate(kind):
    assert kind().rate(0, 100, 0.3) == pytest.approx(0.3)


@given(lengths, st.floats(1e-6, 10))
def test_a_rate_climbs_through_the_warm_up_and_never_again(length, base):
    steps, warmup = length
    for schedule in (Cosine(warmup_steps=warmup), Linear(warmup_steps=warmup, end=base / 10)):
        few = sorted({0, 1, warmup // 2, warmup, (warmup + steps) // 2, steps - 1, steps} & set(range(steps + 1)))
        rates = [schedule.rate(step, steps, base) for step in few]
        before = [rate for step, rate in zip(few, rates, strict=True) if step <= warmup]
        after = [rate for step, rate in zip(few, rates, strict=True) if step >= warmup]
        assert all(0 <= rate <= base * (1 + 1e-12) for rate in rates)
        assert after == sorted(after, reverse=True)
        assert before == sorted(before)
        assert schedule.rate(warmup, steps, base) == pytest.approx(base)


@given(lengths)
def test_the_last_update_is_near_the_end_rate_and_beyond_it_nothing_climbs(length):
    steps, warmup = length
    assert Cosine(warmup_steps=warmup).rate(steps + 5, steps, 1.0) == pytest.approx(0, abs=1e-12)
    assert Linear(warmup_steps=warmup, end=0.01).rate(steps + 5, steps, 1.0) == pytest.approx(0.01)


def test_the_rate_of_a_run_is_its_schedule_over_its_steps():
    settings = TrainSettings(steps=110, lr=0.3, schedule=Linear(warmup_steps=10, end=0.1))
    assert settings.rate(60) == pytest.approx(0.2)
