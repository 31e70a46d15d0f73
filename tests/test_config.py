import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlab.config import difference, loads, nearest, override, parse, read_json, to_json
from vitlab.data.digits import Digits
from vitlab.data.folder import Folder
from vitlab.data.fractals import Fractals
from vitlab.data.preprocess import CentralCrop, ImageSpec, Squash
from vitlab.data.source import Part
from vitlab.data.table import Table
from vitlab.data.transforms import Augment, InceptionCrop, NoCrop, ResizeCrop
from vitlab.errors import SettingsError
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import ViTSettings
from vitlab.nn.pooling import ClassToken, Mean
from vitlab.studies.recipe import Origin, RunSettings
from vitlab.train.balance import Balanced, Equal, PerClass
from vitlab.train.config import TrainSettings
from vitlab.train.masked import MaskedPatches
from vitlab.train.objective import Sigmoid, Softmax
from vitlab.train.optimizer import SGD, Adam
from vitlab.train.schedule import Cosine, Linear, Staircase

TRAIN = TrainSettings(steps=100, optimizer=Adam(beta1=0.8), schedule=Cosine(warmup_steps=5))

counts, fractions = st.integers(1, 10**6), st.floats(0, 0.9)
positive = st.floats(1e-9, 1e9)
parts = st.none() | st.builds(Part, side=st.sampled_from(["train", "test"]), fraction=st.floats(0.1, 0.9))
paths = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8).map(Path)
sources = st.one_of(
    st.builds(Digits, part=parts),
    st.builds(Fractals, num_classes=counts, image_size=st.integers(8, 64), part=parts),
    st.builds(Folder, path=paths, subset=st.none() | st.just("val"), part=parts),
    st.builds(Table, path=paths, image_column=st.text(max_size=5), part=parts),
)
optimizers = st.builds(Adam, beta1=fractions, eps=positive, decay=st.sampled_from(["kernels", "all"])) | st.builds(
    SGD, momentum=fractions, weight_decay=st.floats(0, 10)
)
schedules = st.builds(Cosine, warmup_steps=counts) | (
    st.builds(Linear, warmup_steps=counts, end=st.floats(0, 1)) | st.builds(Staircase, warmup_steps=counts)
)
class_weights = st.sampled_from([Equal(), Balanced(), PerClass(weights={"a.b": 2.0})])
objectives = st.builds(Softmax, label_smoothing=fractions, class_weights=class_weights) | (
    st.builds(Sigmoid, label_smoothing=st.floats(0, 0.4)) | st.builds(MaskedPatches, corrupted=st.floats(0.1, 1))
)
trainings = st.builds(
    TrainSettings, steps=counts, batch_size=counts, lr=positive, optimizer=optimizers, schedule=schedules,
    clip_norm=st.none() | positive, objective=objectives, eval_every=st.none() | counts,
)  # fmt: skip
models = st.builds(
    ViTSettings, image_size=st.tuples(st.integers(16, 512), st.integers(16, 512)), pool=st.builds(ClassToken)
    | st.builds(Mean), dropout=fractions, num_classes=st.none() | counts, head_bias=st.floats(-20, 20),
)  # fmt: skip
specs = st.builds(ImageSpec, height=counts, fit=st.builds(Squash) | st.builds(CentralCrop, fraction=st.floats(0.1, 1)))
crops = st.builds(InceptionCrop, area=st.tuples(fractions, fractions)) | st.builds(ResizeCrop) | st.builds(NoCrop)
runs = st.builds(
    RunSettings, recipe=st.text(), model=models, weights=st.none() | st.builds(Origin, path=st.text(), sha256=st.text()),
    train_data=sources, evals=st.dictionaries(st.text(min_size=1, max_size=5), sources, max_size=2),
    image_spec=specs, augment=st.builds(Augment, crop=crops), train=trainings,
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(runs)
def test_every_run_survives_the_way_through_json(run):
    assert parse(RunSettings, json.loads(json.dumps(to_json(run))), "config.json") == run


@settings(deadline=None, max_examples=60)
@given(runs, runs)
def test_a_difference_is_empty_exactly_for_equal_settings(old, new):
    assert difference(old, old) == []
    assert bool(difference(old, new)) == (to_json(old) != to_json(new))


def test_a_difference_is_one_line_a_field_with_both_values():
    assert difference(TRAIN, override(TRAIN, ["steps=7", "optimizer.beta1=0.5"])) == [
        "steps: 100 -> 7",
        "optimizer.beta1: 0.8 -> 0.5",
    ]
    lines = difference(TRAIN, override(TRAIN, ["optimizer=SGD"]))
    assert 'optimizer.type: "Adam" -> "SGD"' in lines
    assert "optimizer.momentum: (none) -> 0.9" in lines and "optimizer.eps: 1e-08 -> (none)" in lines


@pytest.mark.parametrize(
    ("change", "path", "value"),
    [
        ("steps=7", "steps", 7),
        (" lr = 1e-4 ", "lr", 1e-4),
        ("clip_norm=null", "clip_norm", None),
        ("schedule.warmup_steps=3", "schedule.warmup_steps", 3),
        ("optimizer.decay=all", "optimizer.decay", "all"),
        ('optimizer.decay="all"', "optimizer.decay", "all"),
        ('objective={"type": "Sigmoid", "label_smoothing": 0.25}', "objective.label_smoothing", 0.25),
    ],
)
def test_a_dotted_path_sets_one_field_to_a_json_value_or_a_word(change, path, value):
    found = override(TRAIN, [change])
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value and type(found) is type(value)


def test_changes_apply_in_order_and_leave_the_original():
    assert override(TRAIN, ["steps=1", "steps=2"]).steps == 2
    assert TRAIN.steps == 100


def test_a_kind_is_chosen_by_its_name_and_drops_the_options_of_the_old_kind():
    assert override(TRAIN, ["optimizer=SGD"]).optimizer == SGD()
    assert override(TRAIN, ["optimizer.type=SGD"]).optimizer == SGD()


def test_a_kind_in_a_kind_can_be_chosen_with_it():
    changed = override(TRAIN, ["objective=Sigmoid", "objective.class_weights=Balanced"])
    assert changed.objective == Sigmoid(class_weights=Balanced())
    weights = ["objective.class_weights=PerClass", 'objective.class_weights.weights={"cat": 2}']
    assert override(TRAIN, weights).objective == Softmax(class_weights=PerClass(weights={"cat": 2.0}))
    with pytest.raises(SettingsError, match=r"'objective\.class_weights' has no type"):
        override(TRAIN, ['objective.class_weights={"cat": 2}'])


def test_naming_the_present_kind_keeps_its_options():
    assert override(TRAIN, ["optimizer=Adam"]).optimizer == Adam(beta1=0.8)


def test_the_options_of_a_new_kind_can_be_set_after_its_name():
    changed = override(TRAIN, ["optimizer=SGD", "optimizer.momentum=0.5", "schedule.type=Linear", "schedule.end=0"])
    assert (changed.optimizer, changed.schedule) == (SGD(momentum=0.5), Linear(end=0))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("steps", "no '='"),
        ("=3", "no setting ''"),
        ("stesp=3", "did you mean 'steps'?"),
        ("optimizer.bata1=3", "no setting 'bata1' in 'optimizer'; did you mean 'beta1'?"),
        ("optimizer=Adma", "did you mean 'Adam'?"),
        ("optimizer.type=sgd", "did you mean 'SGD'?"),
        ("steps.more=3", "no setting 'more' in 'steps'"),
        ("steps=many", "'steps' = \"many\""),
        ("steps=-1", "'steps' = -1"),
        ("lr=NaN", "'lr'"),
        ("lr=1e999", "'lr'"),
        ("optimizer.decay=some", "'kernels' or 'all'"),
        ("micro_batch_size=7", "does not divide into pieces of 7"),
        ('optimizer={"momentum": 0.9}', "optimizer"),
    ],
)
def test_a_change_that_fits_nothing_is_refused_in_one_line(change, said):
    with pytest.raises(SettingsError) as caught:
        override(TRAIN, [change])
    assert said in str(caught.value) and "\n" not in str(caught.value)


def sample(train_data, optimizer, schedule, objective, crop, fit, pool) -> RunSettings:
    return RunSettings(
        recipe="scratch",
        model=ViTSettings(pool=pool),
        weights=Origin(path="x", sha256="y"),
        train_data=train_data,
        evals={"val": train_data},
        image_spec=ImageSpec(fit=fit),
        augment=Augment(crop=crop),
        train=TrainSettings(optimizer=optimizer, schedule=schedule, objective=objective),
    )


PART = Part(side="test", fraction=0.1)
SAMPLES = [
    sample(Digits(part=PART), Adam(), Cosine(), Softmax(), InceptionCrop(), Squash(), ClassToken()),
    sample(Fractals(part=PART), SGD(), Linear(), Sigmoid(), ResizeCrop(), CentralCrop(), Mean()),
    sample(Folder("photos", part=PART), SGD(), Cosine(), Softmax(), NoCrop(), Squash(), Mean()),
    sample(Table("photos", part=PART), Adam(), Linear(), Sigmoid(), InceptionCrop(), CentralCrop(), Mean()),
]


def fields(data, path=()):
    for name, value in data.items():
        if path[-1:] != ("evals",):
            yield (*path, name)
        if isinstance(value, dict):
            yield from fields(value, (*path, name))


def edits(word):
    yield word + "x"
    yield word[:-1] + "q"
    if len(word) > 2:
        yield word[0] + word[2:]
        yield word[1] + word[0] + word[2:]


def near(word, other):
    """Whether two words are at most two edits apart (a swap of neighbours counts as two)."""
    row = list(range(len(other) + 1))
    for start, letter in enumerate(word, 1):
        last, row = row, [start]
        for place, letter2 in enumerate(other, 1):
            row.append(min(last[place] + 1, row[-1] + 1, last[place - 1] + (letter != letter2)))
    return row[-1] <= 2


def names_it(said, wrong, holder):
    """Whether a refusal shows the wrong name and points at the right one, or lists all where nothing is near."""
    if "did you mean '" not in said:
        return wrong in said and all(name in said for name in holder)
    named = said.rsplit("did you mean '", 1)[1].split("'")[0]
    return wrong in said and named in holder and near(wrong, named)


def inside(data, path):
    for name in path:
        data = data[name]
    return data


def mistyped(run):
    for path in fields(to_json(run)):
        holder = inside(to_json(run), path[:-1])
        for wrong in edits(path[-1]):
            if wrong not in holder:
                yield path, wrong, list(holder)


def refusal(act):
    with pytest.raises(SettingsError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("run", SAMPLES, ids=lambda run: run.train_data.type)
def test_every_field_mistyped_in_set_is_refused_and_the_right_one_named(run):
    for path, wrong, holder in mistyped(run):
        said = refusal(lambda: override(run, [".".join((*path[:-1], wrong)) + "=1"]))  # noqa: B023
        assert names_it(said, wrong, holder), (path, said)


@pytest.mark.parametrize("run", SAMPLES, ids=lambda run: run.train_data.type)
def test_every_field_mistyped_in_a_file_is_refused_and_the_right_one_named(run):
    unclear = []
    for path, wrong, holder in mistyped(run):
        if path[-1] != "type":  # without a type there is no kind to look the names up in
            data = to_json(run)
            place = inside(data, path[:-1])
            place[wrong] = place.pop(path[-1])
            said = refusal(lambda: parse(RunSettings, data, "config.json"))  # noqa: B023
            unclear += [] if names_it(said, wrong, holder) else [(".".join(path), said)]
    assert unclear == []


def test_a_part_without_a_kind_is_refused_with_the_kinds_named():
    data = to_json(TRAIN)
    del data["optimizer"]["type"]
    with pytest.raises(SettingsError, match=r"optimizer.*(Adam.*SGD|type)"):
        parse(TrainSettings, data, "config.json")


def test_nearest_ignores_case_and_lists_all_when_nothing_is_near():
    assert nearest("SGd", ["Adam", "SGD"]) == "did you mean 'SGD'?"
    assert nearest("zzz", ["Adam", "SGD"]) == "choose from Adam, SGD"
    assert nearest("zzz", []) == ""
    assert nearest("zzz", ["Adam", "SGD"], "see the list") == "see the list"


@pytest.mark.parametrize("content", [None, b"{", b"[1]", b"\xff{}"])
def test_a_file_that_holds_no_settings_is_named(tmp_path, content):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read_json(path)
    assert str(path) in str(caught.value) and caught.value.remedy


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        TRAIN.steps = 3


def test_json_that_fills_the_stack_or_the_memory_is_refused(tmp_path):
    for text, words in (
        ("[" * 200_000, "nested too deeply"),
        ('{"a":' * 200_000, "more than 400,000 values|nested too deeply"),
        ("[" + "{}," * 400_000 + "{}]", "more than 400,000 values"),
        ("1" * 5000, "digits"),
    ):
        with pytest.raises(ValueError, match=words):
            loads(text)
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(SettingsError, match=f"a.json: is not JSON .*({words})"):
            read_json(tmp_path / "a.json")


def test_json_of_the_names_of_21843_classes_is_read():
    names = {str(index): f"a name, {index}, of a class" for index in range(21_843)}
    assert loads(json.dumps({"id2label": names, "label2id": {name: key for key, name in names.items()}}))


def test_a_model_without_measure_is_refused_at_once():
    for change in ("width=1000000000001", "depth=1000000000", "num_heads=1000000000000", "mlp_dim=10000000000000000"):
        with pytest.raises(SettingsError, match=f"'{change.split('=')[0]}' = .*less than or equal to 16777216"):
            override(ViTSettings(), [change])
    for model, change in ((ViTSettings(), "depth=1001"), (ResNetSettings(), "depths=[900,101]")):
        with pytest.raises(SettingsError, match="1,001 layers are more than a model can hold; use at most 1,000"):
            override(model, [change])
    with pytest.raises(SettingsError, match="does not divide into 7 heads; use num_heads 8"):
        override(ViTSettings(), ["width=16384", "num_heads=7"])
    with pytest.raises(SettingsError, match="does not divide into 9999991 heads; use num_heads 768"):
        override(ViTSettings(), ["num_heads=9999991"])
    with pytest.raises(SettingsError, match=r"'image_size\.0' = 65537"):
        override(ViTSettings(), ["image_size=65537"])
