"""Devices and time as a person writes them, and what they compute."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitlab.cost.budget import UTILISATION, Budget, device_named, devices, parse_budget
from vitlab.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "count", "device", "hours"),
    [
        ("8xH200 24h", 8, "H200", 24),
        ("8 x h200, 24 h", 8, "H200", 24),
        ("8×H200 for 3 days", 8, "H200", 72),
        ("64xTPUv3 core 2.5d", 64, "TPUv3 core", 60),
        ("rtx4090 30min", 1, "RTX 4090", 0.5),
        ("2x H100-PCIe 2 weeks", 2, "H100 PCIe", 336),
        ("A100", 1, "A100", None),
        ("16xA100 90 minutes", 16, "A100", 1.5),
    ],
)
def test_a_budget_is_read_as_people_write_it(text, count, device, hours):
    found = parse_budget(text)
    assert (found.count, found.device) == (count, device)
    assert found.hours == (None if hours is None else pytest.approx(hours))


def test_a_budget_by_hand():
    budget = parse_budget("8xH200 24h")
    assert budget.rate == pytest.approx(0.4 * 989.4e12) and UTILISATION == 0.4
    assert budget.exaflops == pytest.approx(8 * 0.4 * 989.4e12 * 86_400 / 1e18)
    assert budget.device_hours(1567.2) == pytest.approx(1567.2e18 / (0.4 * 989.4e12) / 3600)
    assert budget.hours_for(1567.2) == pytest.approx(budget.device_hours(1567.2) / 8)
    assert "40 % of 989.4 TFLOP/s" in budget.basis and "data sheet" in budget.basis
    assert parse_budget("8xH200 24h", 0.2).exaflops == pytest.approx(budget.exaflops / 2)


def test_a_rate_stands_for_itself_and_for_devices_that_are_not_known():
    budget = parse_budget("4xWonder 1h", rate=100)
    assert (budget.device, budget.rate, budget.exaflops) == ("Wonder", 100e12, pytest.approx(4 * 100e12 * 3600 / 1e18))
    assert parse_budget("H200", rate=100).rate == 100e12
    assert parse_budget("Wonder 7", rate=100).device == "Wonder 7"
    assert parse_budget("H200").exaflops is None


def test_the_paper_used_such_a_share_of_its_own_devices():
    """Core-days of table 2 and exaFLOPs of table 6: the default share lies between those of the two ViTs."""
    core = device_named("TPUv3 core").tflops * 1e12
    used = {name: flops * 1e18 / (days * 86_400) / core for name, flops, days in (("L", 1567, 680), ("H", 4262, 2500))}
    assert used["L"] == pytest.approx(0.434, abs=0.002) and used["H"] == pytest.approx(0.321, abs=0.002)
    assert used["H"] < UTILISATION < used["L"]


@given(st.integers(1, 10**6), st.floats(1e-3, 1e6), st.floats(1e-6, 1e9))
def test_what_is_spent_is_what_there_is(count, tflops, exaflops):
    budget = Budget(count, "any", tflops * 1e12, 1.0, "")
    whole = Budget(count, "any", tflops * 1e12, budget.hours_for(exaflops), "")
    assert whole.exaflops == pytest.approx(exaflops)


def test_every_device_says_where_its_rate_is_from():
    names = [device.name for device in devices()]
    assert len(set(map(str.lower, names))) == len(names) > 15
    assert all(device.tflops > 0 and device.memory_gb > 0 and device.source for device in devices())
    assert {device.precision for device in devices()} == {"bfloat16", "float16"}
    assert device_named("tpu-v3").tflops == 2 * device_named("TPUv3 core").tflops


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("", {}, "is no budget; write it like '8xH200 24h'"),
        ("8xH20O 24h", {}, "the rate of 'H20O' is not known; did you mean 'H200'"),
        ("8xH200 24", {}, "what follows 'H200' in '8xH200 24' is not one time; write it like '8xH200 24h'"),
        ("8xH200 24", {"rate": 400.0}, "what follows 'H200' in '8xH200 24' is not one time"),
        ("8xH200 1d 12h", {}, "what follows 'H200' in '8xH200 1d 12h' is not one time"),
        ("rtx 4090, 24hrs", {}, "what follows 'rtx 4090' in 'rtx 4090, 24hrs' is not one time"),
        ("8xH200 -1h", {}, "what follows 'H200' in '8xH200 -1h' is not one time"),
        ("24h", {}, "the rate of '24h' is not known"),
        ("0xH200 24h", {}, "is nothing"),
        ("8xH200 0h", {}, "is nothing"),
        ("8xWonder 24h", {}, "--rate in TFLOP/s"),
        ("9" * 5000 + "xH200 24h", {}, "is no budget"),
        ("8xH200 " + "9" * 400 + "h", {}, "is no budget"),
        ("8xH200 24h", {"utilisation": 1.5}, "--utilisation: 1.5 is no share"),
        ("8xH200 24h", {"utilisation": float("nan")}, "is no share"),
        ("8xH200 24h", {"rate": 0.0}, "--rate: 0 is no rate"),
        ("8xH200 24h", {"rate": float("inf")}, "is no rate"),
        ("8xH200 24h", {"rate": 100.0, "utilisation": 0.4}, "contradicts --rate"),
    ],
)
def test_what_is_no_budget_is_refused_in_a_line(text, options, words):
    with pytest.raises(SettingsError) as caught:
        parse_budget(text, **options)
    assert words in str(caught.value) and "\n" not in str(caught.value)
