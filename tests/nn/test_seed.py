import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from vitlab.nn.seed import keyed_seed

KEYS = st.lists(st.integers() | st.text(max_size=5), min_size=1, max_size=4)


@given(KEYS, KEYS)
def test_a_seed_has_63_bits_and_tells_keys_apart(first, second):
    assert 0 <= keyed_seed(*first) < 2**63
    assert (keyed_seed(*first) == keyed_seed(*second)) == (first == second)


def test_the_type_of_a_part_of_the_key_counts():
    assert keyed_seed(1, "1") != keyed_seed("1", 1)


def test_a_seed_is_the_same_in_every_process():
    script = "from vitlab.nn.seed import keyed_seed; print(keyed_seed(3, 'dropout', 7))"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert int(printed) == keyed_seed(3, "dropout", 7)
