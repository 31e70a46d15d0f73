import pytest

from vitlab.errors import SettingsError
from vitlab.models.catalog import NAMES, build_named, list_models, settings_for
from vitlab.models.classifier import empty
from vitlab.nn.grid import Grid, Size

NONE, K, K21 = None, 1000, 21843
# Measured from the official code: at 224 px without head, 1,000 classes, 21,843 classes, 21,843 classes behind a
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
    "R+Ti/16": (6144704, 6337704, 10360403, 10397459, 6162944, 6355944, 10378643),
    "R26+S/32": (36046912, 36431912, 44456467, 44604307, 36083392, 36468392, 44492947),
    "R26+B/32": (100614976, 101383976, 117412243, 118002835, 100687936, 101456936, 117485203),
    "R50+B/32": (110176832, 110945832, 126974099, 127564691, 110249792, 111018792),
    "R50+B/16": (97890112, 98659112, 114687379, 115277971, 98181952, 98950952, 114979219),
    "R50+L/32": (327969856, 328994856, 350358931, 351408531, 328067136, 329092136, 350456211),
    "R50+L/16": (315458624, 316483624, 337847699, 338897299, 315847744, 316872744),
}
# Without head, 1,000 classes, 21,843 classes.
BIT_COUNTS = {
    "BiT-R50x1": (23500352, 25549352, 68256659),
    "BiT-R50x2": (93891712, 97988712, 183382483),
    "BiT-R50x3": (211174080, 217319080, 345399315),
    "BiT-R101x1": (42492480, 44541480, 87248787),
    "BiT-R101x3": (381789888, 387934888, 516015123),
    "BiT-R152x1": (58136128, 60185128, 102892435),
    "BiT-R152x2": (232238208, 236335208, 321728979),
    "BiT-R152x4": (928340224, 936533224, 1107299923),
    "BiT-R200x3": (562488000, 568633000, 696713235),
    "ResNet-R50x1": (23508032,),
    "ResNet-R50x2": (93907072,),
    "ResNet-R101x1": (42500160,),
    "ResNet-R152x1": (58143808,),
    "ResNet-R152x2": (232253568,),
    "ResNet-R200x3": (562511040,),
    "Axial-B/32": (172475904,),
    "Axial-B/16": (170711808,),
}
COLUMNS = [(224, NONE, 0), (224, K, 0), (224, K21, 0), (224, K21, 1), (384, NONE, 0), (384, K, 0), (384, K21, 0)]


def count(settings):
    return sum(parameter.numel() for parameter in empty(settings).parameters())


@pytest.mark.parametrize("name", COUNTS)
def test_a_published_size_has_the_exact_number_of_parameters(name):
    for (size, classes, representation), expected in zip(COLUMNS, COUNTS[name], strict=False):
        settings = settings_for(name, classes, size)
        if representation:
            settings = settings.model_copy(update={"representation_dim": settings.width})
        assert count(settings) == expected, (size, classes, representation)


@pytest.mark.parametrize("name", BIT_COUNTS)
def test_a_compared_model_has_the_exact_number_of_parameters(name):
    for classes, expected in zip((NONE, K, K21), BIT_COUNTS[name], strict=False):
        assert count(settings_for(name, classes)) == expected, classes


def test_every_name_of_the_paper_is_counted_here():
    assert set(NAMES) - set(COUNTS) - set(BIT_COUNTS) == {
        *("Mini/4", "Mini/8", "Mini/16", "b/32", "Scaling/32", "AxialResNet-50")
    }


def test_the_small_b_of_figure_four_halves_every_width_of_b():
    half, whole = settings_for("b/32"), settings_for("B/32")
    assert (2 * half.width, 2 * half.mlp_dim, 2 * half.num_heads) == (whole.width, whole.mlp_dim, whole.num_heads)
    assert half.depth == whole.depth


def test_the_base_of_figure_eight_has_the_trunk_of_the_paper():
    settings = settings_for("Scaling/32", None)
    assert count(settings) == pytest.approx(70.4e6, rel=1e-3)


@pytest.mark.parametrize(("name", "size", "expected"), [("L/16", 512, 305174504), ("H/14", 518, 633470440)])
def test_the_sizes_of_table_two_have_the_exact_number_of_parameters(name, size, expected):
    assert count(settings_for(name, 1000, size)) == expected


@pytest.mark.parametrize(
    ("name", "same"),
    [
        *((name, "B/16") for name in ("B/16", "ViT-B/16", "ViT-B_16", "B_16")),
        *((name, "R50+L/32") for name in ("R50+ViT-L_32", "R50+L_32")),
        *((name, "Axial-B/32") for name in ("Axial-ViT-B/32", "Axial-B_32")),
    ],
)
def test_a_model_answers_to_all_its_names(name, same):
    assert settings_for(name) == settings_for(same)


def test_an_image_size_is_a_side_or_height_and_width():
    assert settings_for("H/14", image_size=384).grid == Grid(27, 27)
    assert settings_for("S/16", image_size=(160, 224)).image_size == Size(160, 224)


@pytest.mark.parametrize("name", ["B/17", "Mini/2"])
def test_a_size_takes_any_patch(name):
    assert settings_for(name).stem.patch_size == Size(*[int(name.split("/")[1])] * 2)


@pytest.mark.parametrize(("name", "hint"), [("h/14", "'H/14'"), ("B16", "'B/16'"), ("XL/16", "'L/16'")])
def test_an_unknown_name_gets_a_suggestion(name, hint):
    with pytest.raises(SettingsError, match=f"no model '{name}'.*{hint}"):
        settings_for(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "B",
        "B/",
        "/16",
        "B/-1",
        "B/0",
        "R50+B/8",
        "BiT-R51x1",
        "BiT-R50x0",
        "Axial-B/0",
        "../../etc",
        "ViT-B_16.npz",
    ],
)
def test_what_is_no_name_is_refused(name):
    with pytest.raises(SettingsError, match="no model"):
        settings_for(name)


@pytest.mark.parametrize(("name", "size"), [("B/16", 15), ("B/16", (16, 8))])
def test_an_image_smaller_than_a_patch_is_refused(name, size):
    with pytest.raises(SettingsError, match="smaller than one patch"):
        settings_for(name, image_size=size)


def test_what_cannot_be_is_never_proposed():
    with pytest.raises(SettingsError, match=r"no model 'B/0'; did you mean 'B/\d+'") as error:
        settings_for("B/0")
    assert "mean 'B/0'" not in str(error.value)


def test_a_named_model_is_built_with_fresh_weights():
    model = build_named("Mini/4", num_classes=10, image_size=8)
    assert (model.settings.num_classes, model.settings.grid) == (10, Grid(2, 2))
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def test_the_list_has_every_name_with_its_parameters():
    rows = {row.name: row for row in list_models()}
    assert tuple(rows) == NAMES
    assert rows["B/16"].parameters == 86567656
    assert (rows["H/14"].width, rows["H/14"].num_heads) == (1280, 16)
    assert (rows["BiT-R152x4"].parameters, rows["BiT-R152x4"].num_heads) == (936533224, None)
