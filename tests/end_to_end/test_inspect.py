"""`vitlab inspect`: from the command line to a page that answers in a browser."""

import errno
import json
import os
import shutil

import numpy as np
import pytest

from tests.end_to_end.conftest import vitlab
from tests.end_to_end.test_page import CHROMIUM, SCREENS, browser, luminance  # noqa: F401  (a fixture)
from vitlab.errors import VitlabError
from vitlab.models.classifier import build
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import Axial, ViTSettings
from vitlab.nn.grid import Size
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import Mean
from vitlab.nn.position import NoPosition
from vitlab.weights.save import save

HOSTILE = "<img src=x onerror=boom()> $x$ & 'quoted'.png"
SMALL = {"width": 16, "num_heads": 2, "depth": 2, "mlp_dim": 32, "num_classes": 3, "image_size": Size(8, 12)}


@pytest.fixture(scope="module")
def looked(once, trained, photos):
    """The folder that the command line writes for two photos, one of them with a name that is no name."""

    def inspect(folder):
        folder.mkdir()
        shutil.copy(photos / "cat" / "0.png", folder / HOSTILE)
        images = (photos / "dog" / "1.png", folder / HOSTILE)
        done = vitlab("inspect", trained, *images, "--data", photos, "--out", folder / "look", "--json")
        assert done.code == 0, done.err
        (folder / "said.json").write_text(done.out)

    return once("inspected", inspect)


@pytest.fixture
def model_of(tmp_path):
    def make(settings, name="model"):
        path = tmp_path / f"{name}.safetensors"
        save(build(settings, classes=("ant", "bee", "cat")), path)
        return path

    return make


def test_it_says_what_it_found(looked):
    said = json.loads((looked / "said.json").read_text())
    assert [image["path"].rsplit("/", 1)[1] for image in said["images"]] == ["1.png", HOSTILE]
    for image in said["images"]:
        assert len(image["top"]) == 3 and sum(share for _, share in image["top"]) == pytest.approx(1, abs=1e-5)
        assert 0 <= image["settled_after_layer"] <= said["layers"] == 2
        assert [near["cosine"] for near in image["neighbours"]] == sorted(
            (near["cosine"] for near in image["neighbours"]), reverse=True
        )
    assert said["compared"]["images"] == 24 and np.array(said["attention_distance"]).shape == (2, 2)


def test_a_training_image_is_nearest_to_itself(looked, photos):
    dog, cat = json.loads((looked / "said.json").read_text())["images"]
    for image, key in ((dog, "dog/1.png"), (cat, "cat/0.png")):
        assert image["neighbours"][0]["key"] == key
        assert image["neighbours"][0]["cosine"] == pytest.approx(1, abs=1e-5)
        assert len(image["neighbours"]) == 6


def test_the_arrays_are_those_behind_the_page(looked):
    with np.load(looked / "look" / "arrays" / "1.npz", allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    assert found["image"].shape == (16, 16, 3) and found["image"].dtype == np.uint8
    assert found["rollout"].shape == (4, 4) and found["rollout"].max() == 1
    assert found["relevance"].shape == (3, 4, 4) and sorted(found["relevance_classes"]) == [0, 1, 2]
    assert found["attention"].shape == (2, 2, 4, 4) and (found["attention"].sum(axis=(2, 3)) < 1).all()
    np.testing.assert_allclose(found["probabilities_by_layer"][-1], found["probabilities"], atol=1e-5)
    with np.load(looked / "look" / "arrays" / "model.npz", allow_pickle=False) as arrays:
        assert {name: arrays[name].shape for name in arrays.files} == {
            "attention_distance": (2, 2),
            "filters": (16, 4, 4, 3),
            "position_similarity": (4, 4, 4, 4),
        }


def test_every_figure_is_a_picture(looked):
    names = sorted(path.name for path in (looked / "look" / "figures").iterdir())
    own = [f"{kind}-{number}.png" for kind in ("attention", "lens", "neighbours", "relevance") for number in (1, 2)]
    assert names == sorted([*own, "distance.png", "filters.png", "positions.png", "rollout.png"])
    for path in (looked / "look" / "figures").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


def test_the_names_of_files_are_text_in_the_page(looked):
    page = (looked / "look" / "index.html").read_text()
    assert "<img src=x" not in page and "&lt;img src=x" in page


def test_a_folder_that_is_there_is_left_as_it_is(looked, trained, photos, refused, tmp_path):
    (tmp_path / "look").mkdir()
    (tmp_path / "look" / "mine.txt").write_text("mine")
    refused("inspect", trained, photos / "cat" / "0.png", "--out", "look", words=["look", "exists already"])
    refused("inspect", trained, photos / "cat" / "0.png", "--out", "no/look", words=["no", "is no folder"])


def test_a_full_disk_leaves_nothing_behind(trained, photos, tmp_path, monkeypatch):
    from vitlab import files
    from vitlab.studies.inspector import inspect_model
    from vitlab.studies.inspector_page import write_inspection

    found = inspect_model(str(trained), [photos / "cat" / "0.png"], str(photos), workers=0, device="cpu")
    write = files.write_bytes

    def full(path, data):
        write(path, data[:9])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "write_bytes", full)
    with pytest.raises(VitlabError, match=r"look: cannot be written \(No space left"):
        write_inspection(found, tmp_path / "look")
    assert list(tmp_path.iterdir()) == []


def test_models_that_have_nothing_to_show_are_refused(model_of, photos, refused):
    image = photos / "cat" / "0.png"
    resnet = model_of(ResNetSettings(image_size=Size(8, 8), depths=(1,), root_width=32, num_classes=3), "resnet")
    refused("inspect", resnet, image, words=["resnet.safetensors", "is a ResNet: it has no attention"])
    axial = model_of(ViTSettings(**SMALL, stem=Patches(patch_size=Size(4, 4)), pool=Mean(), attention=Axial()), "axial")
    refused("inspect", axial, image, words=["axial.safetensors", "has axial attention"])


def test_bad_images_are_named_and_can_be_left_out(trained, photos, refused, within, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    words = ["2 of 3 images cannot be used", "bad.png", "empty.jpg", "is empty"]
    some = (photos / "cat" / "0.png", "bad.png", "empty.jpg")
    refused("inspect", trained, *some, words=words)
    refused("inspect", trained, *some[1:], "--on-bad-image", "skip", words=["2 of 2 images"])
    done = within("inspect", trained, *some, "--on-bad-image", "skip", "--out", "look")
    assert done.code == 0 and "skipped bad.png" in done.err
    assert "empty.jpg" in (tmp_path / "look" / "index.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["MODEL", "none.png"], ["none.png", "cannot be read"]),
        (["MODEL", "PHOTOS"], ["are 24, more than the 16"]),
        (["MODEL", "EMPTY"], ["empty", "holds no images"]),
        (["MODEL", "IMAGE", "--data", "none"], ["none", "is no data set"]),
        (["MODEL", "IMAGE", "--device", "abacus"], ["--device", "abacus"]),
        (["MODEL"], ["'images'"]),
        (["none", "IMAGE"], ["none"]),
    ],
)
def test_a_wrong_request_is_one_line_and_leaves_nothing(arguments, words, trained, photos, refused, tmp_path):
    (tmp_path / "empty").mkdir()
    stand_for = {"MODEL": trained, "IMAGE": photos / "cat" / "0.png", "EMPTY": tmp_path / "empty", "PHOTOS": photos}
    refused("inspect", *(stand_for.get(word, word) for word in arguments), words=words)


def test_without_the_training_images_the_page_says_what_is_missing(trained, photos, within, tmp_path):
    shutil.copy(trained / "model.safetensors", tmp_path / "alone.safetensors")
    run = shutil.copytree(trained, tmp_path / "moved")
    config = (run / "config.json").read_text()
    (run / "config.json").write_text(config.replace(str(photos), str(tmp_path / "gone")))
    for model, reason in (("alone.safetensors", "is not known: --data"), ("moved", "gone: does not exist")):
        done = within("inspect", model, photos / "cat" / "0.png", "--json")
        assert done.code == 0, done.err
        said = json.loads(done.out)
        assert said["compared"] is None and said["attention_distance"] is None
        page = tmp_path / said["page"]
        assert page.parent.name == f"inspect-{model.removesuffix('.safetensors')}"
        assert reason in page.read_text()
        assert not (page.parent / "figures" / "distance.png").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"stem": Patches(patch_size=Size(3, 5)), "pool": Mean(), "position": NoPosition(), "registers": 2},
        {"stem": {"type": "ResNetStem", "depths": (1,), "root_width": 32}},
    ],
)
def test_any_grid_and_a_hybrid_have_a_page(changes, model_of, photos, within, tmp_path):
    path = model_of(ViTSettings(**SMALL | changes))
    done = within("inspect", path, photos / "cat" / "0.png", "--data", photos, "--out", "look")
    assert done.code == 0, done.err
    page = (tmp_path / "look" / "index.html").read_text()
    assert ("cannot be shown as colours" in page) == ("depths" in str(changes))
    assert ("has no table of positions" in page) == ("position" in changes)


@pytest.mark.slow
def test_a_page_of_a_few_images_is_small(model_of, photos, within, tmp_path):
    """Three images of noise, the attention of 12 heads in 12 layers between 196 patches: 17 million weights."""
    sizes = {"width": 24, "num_heads": 12, "depth": 12, "mlp_dim": 32, "image_size": Size(224, 224), "num_classes": 3}
    path = model_of(ViTSettings(**sizes))
    done = within("inspect", path, *(photos / name / "0.png" for name in ("cat", "dog", "owl")), "--out", "look")
    assert done.code == 0, done.err
    page = (tmp_path / "look" / "index.html").stat().st_size
    assert 500_000 < page < 5_000_000


@pytest.fixture(params=SCREENS.values(), ids=SCREENS.keys())
def page(request, browser, looked):  # noqa: F811
    width, height, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    opened = context.new_page()
    opened.problems, opened.requests_made = [], []
    opened.on("console", lambda message: opened.problems.append(message.text))
    opened.on("pageerror", lambda error: opened.problems.append(str(error)))
    opened.on("request", lambda asked: opened.requests_made.append(asked.url))
    opened.goto((looked / "look" / "index.html").as_uri())
    opened.wait_for_selector("body[data-ready]", timeout=20_000)
    yield opened
    context.close()


ink = "id => document.getElementById(id).toDataURL()"


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: install it to see the page in a browser")
class TestPage:
    def test_it_stands_alone_and_fits_the_screen(self, page):
        asked = [url for url in page.requests_made if not url.startswith("data:")]
        assert asked == [page.url] and page.problems == []
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        for selector in ("body", ".soft"):
            colour = page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).color")
            paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
            light, dark = sorted((luminance(colour), luminance(paper)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5

    def test_a_click_shows_what_that_patch_attends_to(self, page, looked, trained, photos):
        before = {name: page.evaluate(ink, name) for name in ("picture", "heads", "positions")}
        box = page.locator("#picture").bounding_box()
        page.locator("#picture").click(position={"x": box["width"] * 0.6, "y": box["height"] * 0.1})
        assert "patch in row 1, column 3 attends most to" in page.locator("#said").inner_text()
        assert page.locator("#show").input_value() == "attention"
        assert all(page.evaluate(ink, name) != drawn for name, drawn in before.items())
        page.locator("#head").select_option(index=2)
        page.locator("#layer").fill("1")
        words = page.locator("#said").inner_text()
        assert "layer 1, head 2" in words
        assert best_of(words) == expected_best(trained, photos, layer=0, head=1, patch=(0, 2))

    @pytest.mark.parametrize("page", [SCREENS["laptop"]], ids=["laptop"], indirect=True)
    def test_the_keyboard_moves_from_patch_to_patch(self, page):
        page.locator("#picture").focus()
        page.keyboard.press("ArrowRight")
        assert "patch in row 3, column 3" in page.locator("#said").inner_text()
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowUp")
        assert "patch in row 2, column 2" in page.locator("#said").inner_text()
        for _ in range(6):
            page.keyboard.press("ArrowDown")
        assert "patch in row 4, column 2" in page.locator("#said").inner_text()
        assert page.locator("#place").inner_text() == "Row 4, column 2."
        page.keyboard.press("Escape")
        assert "The answer attends most" in page.locator("#said").inner_text()

    @pytest.mark.parametrize("page", [SCREENS["phone"]], ids=["phone"], indirect=True)
    def test_what_is_bright_can_be_chosen(self, page):
        drawn = set()
        options = page.locator("#show option").evaluate_all("all => all.map(option => option.value)")
        assert options == ["rollout", "relevance0", "relevance1", "relevance2", "attention"]
        for value in options:
            page.locator("#show").select_option(value)
            drawn.add(page.evaluate(ink, "picture"))
        assert len(drawn) == len(options)
        page.locator("#heads").click(position={"x": 6, "y": 6})
        assert "layer 1, head 1" in page.locator("#said").inner_text()

    @pytest.mark.parametrize("page", [SCREENS["phone"]], ids=["phone"], indirect=True)
    def test_another_image_brings_its_own_answers(self, page):
        seen = page.locator("[data-image]:visible").evaluate_all("all => all.map(part => part.dataset.image)")
        assert set(seen) == {"0"}
        before = page.evaluate(ink, "picture")
        page.locator("[data-pick='1']").focus()
        page.keyboard.press("Enter")
        seen = page.locator("[data-image]:visible").evaluate_all("all => all.map(part => part.dataset.image)")
        assert set(seen) == {"1"} and page.evaluate(ink, "picture") != before
        assert HOSTILE in page.locator("[data-image='1'] strong").inner_text()
        assert page.problems == []


def best_of(words):
    return tuple(int(word) - 1 for word in words.split(" to row ")[1].split(" (")[0].split(", column "))


def expected_best(trained, photos, layer, head, patch):
    from vitlab.inspection.attention import attention_from
    from vitlab.inspection.figures import open_drawable, prepare
    from vitlab.weights.load import load

    model = load(trained)
    _, batch = prepare(model, open_drawable(model, photos / "dog" / "1.png"))
    row = attention_from(model, batch, patch)[0, layer, head]
    return tuple(divmod(int(row.argmax()), row.shape[1]))
