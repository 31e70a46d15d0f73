"""Every kind of every part as an ONNX graph: with batches of any size, and with images of any size."""

import numpy as np
import pytest
import torch

from tests.contract.examples import EXAMPLES, ODD, SQUARE, make
from vitlab.nn.grid import Size
from vitlab.serve.engine import TOLERANCE, Eager, OnnxRuntime, deviation
from vitlab.serve.export import at_size
from vitlab.serve.onnx.model import draw, to_proto
from vitlab.serve.onnx.reading import OPERATORS
from vitlab.serve.onnx.session import Session, session_of

EXACT = 2e-6


def photos(size, count):
    return torch.randint(256, (count, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_a_graph_gives_what_the_model_gives_for_batches_of_any_size(example):
    model = make(example.settings(ODD))
    engine = OnnxRuntime(session_of(model))
    for count in (1, 3):
        images = photos(ODD, count)
        assert deviation(engine.run(images), Eager(model).run(images)) < EXACT


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_a_graph_of_dynamic_size_gives_what_the_model_loaded_at_that_size_gives(example):
    model = make(example.settings(SQUARE))
    proto, _ = to_proto(draw(model, dynamic_size=True), model, {}, dynamic_size=True)
    assert {node.op_type for node in proto.graph.node} <= OPERATORS
    engine = OnnxRuntime(Session(proto.SerializeToString()))
    for size in (ODD, Size(64, 16)):
        images = photos(size, 2)
        assert deviation(engine.run(images), Eager(at_size(model, size)).run(images)) < EXACT, size


@pytest.mark.slow
@pytest.mark.parametrize("name", ["S/16", "R26+S/32", "BiT-R50x1", "Axial-B/32"])
def test_a_model_of_the_paper_gives_the_same_as_a_graph(name):
    from vitlab.models.catalog import build_named

    model = build_named(name, num_classes=10, image_size=96).eval()
    torch.nn.init.normal_(model.head.weight, std=0.02, generator=torch.Generator().manual_seed(0))
    images = photos((96, 96), 2)
    found, right = OnnxRuntime(session_of(model)).run(images), Eager(model).run(images)
    assert deviation(found, right) < TOLERANCE
    assert np.abs(right.logits).max() > 0.01
