import pytest

from vitlab.errors import SettingsError
from vitlab.models.catalog import NAMES, PUBLISHED, build_named, list_models, settings_for
from vitlab.models.vit import empty
from vitlab.nn.grid import Grid, Size

NONE, K, K21 = None, 1000, 21843
# SPEC.md 1.4, measured from the official code: at 224 px without head, 1,000 classes, 21,843 classes, 21,843 classes behind a
# representation layer; at 384 px without head, 1,000 classes, 21,843 classes.
COUNTS = {
    "Ti/16": (5524416, 5717416, 9740115, 9777171, 5597376, 5790376, 9813075),
    "S/32": (22493952, 22878952, 30903507, 31051347, 22530432, 22915432, 30939987),
    "S/16": (21665664, 22050664, 30075219, 30223059, 21811584, 22196584, 30221139),
    "B/32": (87455232, 88224232, 104252499, 104843091, 87528192, 88297192, 104325459),
    "B/16": (85798656, 86567656, 102595923, 103186515, 86090496, 86859496, 102887763),
    "B/8": (85807872, 86576872, 102605139, 103195731, 86975232, 87744232, 103772499),
    "L/32": (305510400, 306535400, 327899475, 328949075, 305607680, 306632680, 327996755),
    "L/16": (303301632, 304326632, 325690707, 326740307, 303690752, 304715752, 326079827),
    "H/14": (630764800, 632045800, 658745683, 660385363, 631370240, 632651240, 659351123),
}
COLUMNS = [(224, NONE, 0), (224, K, 0), (224, K21, 0), (224, K21, 1), (384, NONE, 0), (384, K, 0), (384, K21, 0)]


def count(settings):
    return sum(parameter.numel() for parameter in empty(settings).parameters())


@pytest.mark.parametrize("name", COUNTS)
def test_a_published_size_has_the_exact_number_of_parameters(name):
    for (size, classes, representation), expected in zip(COLUMNS, COUNTS[name], strict=True):
        settings = settings_for(name, classes, size)
        if representation:
            settings = settings.model_copy(update={"representation_dim": settings.width})
        assert count(settings) == expected, (size, classes, representation)


@pytest.mark.parametrize(("name", "size", "expected"), [("L/16", 512, 305174504), ("H/14", 518, 633470440)])
def test_the_sizes_of_table_two_have_the_exact_number_of_parameters(name, size, expected):
    assert count(settings_for(name, 1000, size)) == expected


def test_every_published_size_is_counted_here():
    assert set(COUNTS) == set(PUBLISHED)


@pytest.mark.parametrize("name", ["B/16", "ViT-B/16", "ViT-B_16", "B_16"])
def test_a_model_answers_to_all_its_names(name):
    assert settings_for(name) == settings_for("B/16")


def test_an_image_size_is_a_side_or_height_and_width():
    assert settings_for("H/14", image_size=384).grid == Grid(27, 27)
    assert settings_for("S/16", image_size=(160, 224)).image_size == Size(160, 224)


@pytest.mark.parametrize("name", ["B/17", "Mini/2"])
def test_a_size_takes_any_patch(name):
    assert settings_for(name).stem.patch_size == Size(*[int(name.split("/")[1])] * 2)


@pytest.mark.parametrize(("name", "hint"), [("b/16", "'B/16'"), ("B16", "'B/16'"), ("XL/16", "'L/16'")])
def test_an_unknown_name_gets_a_suggestion(name, hint):
    with pytest.raises(SettingsError, match=f"no model '{name}'.*{hint}"):
        settings_for(name)


@pytest.mark.parametrize("name", ["", "B", "B/", "/16", "B/-1", "../../etc", "ViT-B_16.npz"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(SettingsError, match="no model"):
        settings_for(name)


@pytest.mark.parametrize(("name", "size"), [("B/16", 15), ("B/16", (16, 8)), ("B/0", 224)])
def test_an_image_smaller_than_a_patch_is_refused(name, size):
    with pytest.raises(SettingsError, match="smaller than one patch"):
        settings_for(name, image_size=size)


def test_a_named_model_is_built_with_fresh_weights():
    model = build_named("Mini/4", num_classes=10, image_size=8)
    assert (model.settings.num_classes, model.settings.grid) == (10, Grid(2, 2))
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def test_the_list_has_every_name_with_its_parameters():
    rows = {row["name"]: row for row in list_models()}
    assert tuple(rows) == NAMES
    assert rows["B/16"]["parameters"] == 86567656
    assert (rows["H/14"]["patch"], rows["H/14"]["num_heads"]) == (14, 16)
