"""The contract of a model: what each kind of each part must be able to do, at two sizes."""

import pytest

pytest.register_assert_rewrite("tests.contract.checks")

from tests.contract.examples import EXAMPLES, SIZES, make  # noqa: E402
from tests.end_to_end.conftest import within  # noqa: E402, F401


@pytest.fixture(params=EXAMPLES, ids=str)
def example(request):
    """A small model of every kind of every part, in turn."""
    return request.param


@pytest.fixture(params=SIZES, ids=str)
def size(request):
    """A square size that every stem divides, and one that is neither."""
    return request.param


@pytest.fixture
def model(example, size):
    """The model of `example` for images of `size`; no parameter of it is zero."""
    return make(example.settings(size))
