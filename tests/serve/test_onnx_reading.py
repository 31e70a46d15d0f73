"""ONNX files of strangers: each change makes a file that must not be run, and has to be refused in a line that names it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import vitlab
from vitlab.errors import WeightsError
from vitlab.serve.onnx.reading import open_graph
from vitlab.serve.onnx.writing import write_graph
from vitlab.serve.predict import Predictor


@pytest.fixture
def proto(make_model, tmp_path):
    write_graph(make_model(classes=("ant", "bee", "cat")), tmp_path / "good.onnx")
    return onnx.load(tmp_path / "good.onnx")


def loop(proto):
    proto.graph.node.insert(
        0, helper.make_node("Loop", ["ints_1", "", ""], ["x"], body=helper.make_graph([], "b", [], []))
    )


def foreign_operator(proto):
    proto.graph.node.insert(0, helper.make_node("Run", ["images"], ["x"], domain="evil"))


def library(proto):
    proto.opset_import.append(helper.make_opsetid("evil", 1))


def function(proto):
    proto.functions.append(helper.make_function("evil", "f", ["a"], ["b"], [], proto.opset_import))


def graph_in_an_attribute(proto):
    proto.graph.node[0].attribute.append(helper.make_attribute("body", helper.make_graph([], "b", [], [])))


def huge_padding(proto):
    proto.graph.node[2].attribute.append(helper.make_attribute("pads", [0, 1 << 40]))


def huge_shape(proto):
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1 << 20, 1 << 20]), "shape"))


def tensor_larger_than_its_bytes(proto):
    proto.graph.initializer.append(TensorProto(name="t", data_type=1, dims=[1 << 40], raw_data=b"\0" * 4))


def text(proto):
    proto.graph.initializer.append(helper.make_tensor("t", TensorProto.STRING, [1], [b"x"]))


def sparse(proto):
    proto.graph.sparse_initializer.add()


def file_elsewhere(proto):
    tensor = proto.graph.initializer.add(name="t", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../etc/passwd")


def file_missing(proto):
    tensor = proto.graph.initializer.add(name="t", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="bad.onnx.data")


def no_format(proto):
    del proto.metadata_props[:]


def other_format(proto):
    next(each for each in proto.metadata_props if each.key == "vitlab.format").value = "99"


def classes_that_do_not_fit(proto):
    next(each for each in proto.metadata_props if each.key == "vitlab.classes").value = '["ant"]'


def settings_of_a_giant(proto):
    part = next(each for each in proto.metadata_props if each.key == "vitlab.settings")
    part.value = part.value.replace('"image_size": [8, 8]', '"image_size": [100000, 100000]')


def other_input(proto):
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def other_outputs(proto):
    del proto.graph.output[1:]


def cycle(proto):
    proto.graph.node[0].input[0] = proto.graph.node[-1].output[0]


def logits(proto, *nodes):
    """Put `nodes` behind the logits, which they are given as "old"."""
    last = next(node for node in proto.graph.node if node.output[0] == "logits")
    last.output[0] = last.name = "old"
    proto.graph.node.extend(nodes)


def more_logits_than_classes(proto):
    logits(proto, helper.make_node("Concat", ["old", "old"], ["logits"], axis=1))
    next(each for each in proto.graph.output if each.name == "logits").type.tensor_type.shape.dim[1].dim_value = 6


def whole_logits(proto):
    logits(proto, helper.make_node("Cast", ["old"], ["logits"], to=TensorProto.INT64))
    next(each for each in proto.graph.output if each.name == "logits").type.tensor_type.elem_type = TensorProto.INT64


def one_answer_for_all(proto):
    logits(proto, helper.make_node("ReduceMean", ["old"], ["logits"], keepdims=0))
    next(each for each in proto.graph.output if each.name == "logits").type.tensor_type.ClearField("shape")


def other_size(proto):
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 16


def batches_of_three(proto):
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3


def many_nodes(proto):
    proto.graph.node.extend(helper.make_node("Relu", ["logits"], [f"x{place}"]) for place in range(20_001))


def memory_of_a_range(proto):
    for name, value in (("from", 0), ("to", 1e13), ("by", 1)):
        proto.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    range_, least = helper.make_node("Range", ["from", "to", "by"], ["x"]), helper.make_node("ReduceMean", ["x"], ["y"])
    logits(proto, range_, least, helper.make_node("Add", ["old", "y"], ["logits"]))


def offset_of_many_digits(proto):
    tensor = proto.graph.initializer.add(name="t", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "bad.onnx.data"), ("offset", "9" * 5000), ("length", "4")):
        tensor.external_data.add(key=key, value=value)


WRONG = {
    loop: "the operator Loop",
    foreign_operator: "the operator Run",
    library: "operators of 'evil'",
    function: "functions",
    graph_in_an_attribute: "body of",
    huge_padding: "pads of",
    huge_shape: "the tensor shape",
    tensor_larger_than_its_bytes: "the tensor t",
    text: "the tensor t",
    sparse: "sparse tensors",
    file_elsewhere: "weights in other files than bad.onnx.data",
    file_missing: "which is not beside it",
    no_format: "does not say how its images are prepared",
    other_format: "has format 99, not 1",
    classes_that_do_not_fit: "1 class names for 3 classes",
    settings_of_a_giant: "is damaged",
    other_input: "does not lead from images to logits",
    other_outputs: "does not lead from images to logits",
    cycle: "is refused by onnxruntime",
    more_logits_than_classes: "does not give logits as it says",
    whole_logits: "does not lead from images to logits",
    one_answer_for_all: "does not give logits as it says",
    other_size: "does not lead from images to logits",
    batches_of_three: "does not lead from images to logits",
    many_nodes: "20,0",
    memory_of_a_range: "cannot be run (",
    offset_of_many_digits: "does not fit bad.onnx.data",
}


@pytest.mark.parametrize("change", WRONG, ids=lambda change: change.__name__)
def test_what_is_no_exported_model_is_refused_by_name(proto, tmp_path, change):
    change(proto)
    path = tmp_path / "bad.onnx"
    (tmp_path / "bad.onnx.data").write_bytes(b"data") if change is offset_of_many_digits else None
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(WeightsError) as caught:
        Predictor.load(path)
    assert str(path) in str(caught.value) and WRONG[change] in str(caught.value)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


def test_nothing_of_a_refused_graph_reaches_the_terminal(proto, tmp_path, capfd):
    memory_of_a_range(proto)
    proto.graph.node[-3].name = "\x1b[31mred"
    (tmp_path / "bad.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(WeightsError) as caught:
        Predictor.load(tmp_path / "bad.onnx")
    assert "\x1b" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


GREEDY = r"""
import re, sys
from pathlib import Path
from vitlab.errors import WeightsError
from vitlab.serve.onnx import session
from vitlab.serve.onnx.reading import open_graph
session.available_memory = lambda _: 200 << 20
try:
    open_graph(Path(sys.argv[1]))
except WeightsError as error:
    print(error)
kilobytes = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]
print(int(kilobytes) >> 10)  # ru_maxrss would be that of the process that forked this one, where that is more
"""


def test_a_graph_that_grows_step_by_step_is_stopped_before_the_memory_is_full(proto, tmp_path):
    doubled = [helper.make_node("Concat", [f"x{place}"] * 2, [f"x{place + 1}"], axis=0) for place in range(24)]
    first, least = helper.make_node("Cast", ["images"], ["x0"], to=1), helper.make_node("ReduceMean", ["x24"], ["y"])
    logits(proto, first, *doubled, least, helper.make_node("Add", ["old", "y"], ["logits"]))
    (tmp_path / "bad.onnx").write_bytes(proto.SerializeToString())
    sources = {"PYTHONPATH": str(Path(vitlab.__file__).parents[1])}
    given = [sys.executable, "-c", GREEDY, tmp_path / "bad.onnx"]
    done = subprocess.run(given, capture_output=True, text=True, env=os.environ | sources, timeout=100, check=True)
    said, held = done.stdout.splitlines()
    assert ("cannot be run (" in said and "Failed to allocate" in said) or "vailable memory" in said
    assert int(held) < 1000


@pytest.mark.parametrize("data", [b"", b"no graph", b"\x08\x09" * 1000, b"PK\x03\x04"])
def test_what_is_no_onnx_file_is_refused(tmp_path, data):
    (tmp_path / "bad.onnx").write_bytes(data)
    with pytest.raises(WeightsError, match=r"bad\.onnx"):
        open_graph(tmp_path / "bad.onnx")


def test_a_file_cut_anywhere_is_refused(make_model, tmp_path):
    write_graph(make_model(), tmp_path / "good.onnx")
    data = (tmp_path / "good.onnx").read_bytes()
    for end in range(0, len(data), len(data) // 20 + 1):
        (tmp_path / "cut.onnx").write_bytes(data[:end])
        with pytest.raises(WeightsError, match=r"cut\.onnx"):
            open_graph(tmp_path / "cut.onnx")


def test_a_link_beside_a_graph_is_not_followed(make_model, tmp_path):
    write_graph(make_model(), tmp_path / "a.onnx", largest=1000)
    os.rename(tmp_path / "a.onnx.data", tmp_path / "elsewhere")
    (tmp_path / "a.onnx.data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WeightsError, match="which is not beside it; put the two together"):
        open_graph(tmp_path / "a.onnx")
    os.unlink(tmp_path / "a.onnx.data")
    (tmp_path / "a.onnx.data").write_bytes(b"short")
    with pytest.raises(WeightsError, match=r"does not fit a\.onnx\.data"):
        open_graph(tmp_path / "a.onnx")


def test_there_has_to_be_a_file(tmp_path):
    with pytest.raises(WeightsError, match="does not exist; check the path"):
        Predictor.load(tmp_path / "none.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(WeightsError, match="is no file; check the path"):
        Predictor.load(tmp_path / "folder.onnx")
