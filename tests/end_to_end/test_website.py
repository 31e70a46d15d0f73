"""The page of a server in a real browser: one server with small models of every sort, for all tests of this file."""

import base64
import io
import re
import socket
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from tests.end_to_end.test_page import CHROMIUM, FLAGS, luminance
from vitlab.models.classifier import build
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import Axial, ViTSettings
from vitlab.nn.grid import Size
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import Mean
from vitlab.serve.examples import choose
from vitlab.serve.predict import Predictor

playwright = pytest.importorskip("playwright.sync_api")
uvicorn = pytest.importorskip("uvicorn")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: install it to see the page in a browser")

CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox")
SMALL = {"width": 16, "depth": 3, "num_heads": 2, "mlp_dim": 32, "stem": Patches(patch_size=Size(8, 8))}
SETTINGS = {
    "first": ViTSettings(image_size=Size(32, 32), num_classes=6, **SMALL),
    "wide": ViTSettings(image_size=Size(16, 40), num_classes=6, pool=Mean(), **SMALL),
    "axial": ViTSettings(image_size=Size(32, 32), num_classes=6, attention=Axial(), pool=Mean(), **SMALL),
    "resnet": ResNetSettings(image_size=Size(32, 32), depths=(1,), root_width=32, num_classes=6),
}


def predictor(settings):
    """Return a model in which every part shows."""
    model = build(settings, classes=CLASSES)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return Predictor(model, batch_size=2)


@pytest.fixture(scope="module")
def predictors():
    return {name: predictor(settings) for name, settings in SETTINGS.items()}


@pytest.fixture(scope="module")
def address(predictors):
    from vitlab.serve.http import create_app
    from vitlab.serve.settings import ServeSettings

    app = create_app(predictors, ServeSettings(max_bytes=1 << 20, decoders=1), choose(None, 4))
    with socket.create_server(("127.0.0.1", 0)) as opened:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
        thread = threading.Thread(target=server.run, args=([opened],))
        thread.start()
        until = time.monotonic() + 60
        while not server.started and thread.is_alive() and time.monotonic() < until:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as engine:
        opened = engine.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser, address):
    contexts = []

    def visit(width=1280, height=900, **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(15_000)
        page.problems, page.asked = [], []
        page.on("console", lambda message: page.problems.append(message.text))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("request", lambda asked: page.asked.append(asked.url))
        page.goto(address)
        page.wait_for_selector(".top li")
        return page

    yield visit
    for context in contexts:
        context.close()


@pytest.fixture
def page(open_page):
    return open_page()


def picture(size=(40, 60), seed=0):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def upload(page, data, name="photo.png", kind="image/png"):
    page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": data})


def drawn(page, which=0):
    """Return what is on the canvas of a panel."""
    return page.locator("canvas.picture").nth(which).evaluate("canvas => canvas.toDataURL()")


def changes(page, before, which=0):
    """Wait until the canvas of a panel shows something else, and return that."""
    page.wait_for_function(
        "([which, before]) => document.querySelectorAll('canvas.picture')[which].toDataURL() !== before",
        arg=[which, before],
    )
    return drawn(page, which)


def overlay(page, name):
    page.locator(f"input[name=view][value={name}]").check(force=True)
    page.wait_for_selector(".legend:visible")


def over(page, across, down, which=0):
    """Move the pointer to a place of the image, in fractions of it."""
    canvas = page.locator("canvas.picture").nth(which)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])


def test_it_opens_with_an_example_answered_and_asks_nobody_else(page, address):
    assert page.locator("#examples button").count() == 4
    assert page.locator("#examples button[aria-pressed=true]").count() == 1
    assert all(url.startswith((address, "blob:")) for url in page.asked)
    assert page.problems == []


def test_the_browser_is_told_to_trust_nothing_else(page, address):
    headers = page.request.get(address).headers
    assert (
        "default-src 'none'" in headers["content-security-policy"]
        and "unsafe" not in headers["content-security-policy"]
    )
    assert headers["x-content-type-options"] == "nosniff"
    assert page.request.get(f"{address}/page/../../pyproject.toml").status == 404
    assert page.request.get(f"{address}/page/examples/99").status == 404


def test_an_upload_is_answered_as_the_model_answers(page, predictors):
    upload(page, picture())
    page.wait_for_function("() => document.querySelector('.picture').ariaLabel.startsWith('photo.png')")
    shown = page.locator(".top:not(.layers) li").all_inner_texts()
    best = predictors["first"](picture()).top(5)
    assert [re.split(r"\s", text)[0] for text in shown] == [name for name, _ in best]
    shares = [float(re.search(r"([\d.]+)\s%", text)[1]) / 100 for text in shown]
    np.testing.assert_allclose(shares, [share for _, share in best], atol=0.001)
    assert page.locator(".original").evaluate("image => image.naturalWidth") == 60
    assert page.locator(".prepared").evaluate("image => [image.naturalWidth, image.naturalHeight]") == [32, 32]
    assert page.locator("#examples button[aria-pressed=true]").count() == 0
    assert page.problems == []


def test_the_same_image_can_be_dropped_or_pasted(page):
    give = """([data, kind]) => {
        const file = new File([Uint8Array.from(atob(data), letter => letter.charCodeAt(0))], `${kind}.png`, {type: 'image/png'});
        const moved = new DataTransfer();
        moved.items.add(file);
        document.dispatchEvent(kind === 'drop'
            ? new DragEvent('drop', {dataTransfer: moved, bubbles: true, cancelable: true})
            : new ClipboardEvent('paste', {clipboardData: moved, bubbles: true}));
    }"""
    for kind in ("drop", "paste"):
        page.evaluate(give, [base64.b64encode(picture()).decode(), kind])
        page.wait_for_function(f"() => document.querySelector('.picture').ariaLabel.startsWith('{kind}.png')")


def test_an_example_is_picked(page):
    before = drawn(page)
    page.locator("#examples button").nth(3).click()
    changes(page, before)
    assert page.locator("#examples button").nth(3).get_attribute("aria-pressed") == "true"


def test_the_map_changes_as_the_pointer_moves_over_patches_without_asking_the_server(page):
    overlay(page, "attention")
    asked = len(page.asked)
    seen = [drawn(page)]
    for across, down in ((0.1, 0.1), (0.6, 0.1), (0.9, 0.9)):
        over(page, across, down)
        seen.append(changes(page, seen[-1]))
    assert "row 4, column 4" in page.locator(".readout").inner_text()
    assert len(set(seen)) == 4 and len(page.asked) == asked
    page.mouse.move(5, 5)
    assert changes(page, seen[-1]) == seen[0]
    assert page.problems == []


def test_a_click_holds_a_patch_and_a_second_one_lets_go(page):
    overlay(page, "attention")
    start = drawn(page)
    over(page, 0.4, 0.4)
    page.mouse.down()
    page.mouse.up()
    page.mouse.move(5, 5)
    held = changes(page, start)
    assert "row 2, column 2" in page.locator(".readout").inner_text()
    over(page, 0.9, 0.1)
    changes(page, held)
    over(page, 0.4, 0.4)
    page.mouse.down()
    page.mouse.up()
    page.mouse.move(5, 5)
    page.wait_for_function("() => document.querySelector('.readout').textContent.startsWith('The class token')")
    assert drawn(page) == start


def test_layer_and_head_and_patch_are_chosen_by_keyboard(page):
    page.locator("input[name=view][value=rollout]").focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    page.wait_for_selector(".where:visible")
    before = changes(page, drawn(page)) if page.locator(".legend").is_hidden() else drawn(page)
    for slider, key, said in (
        ("layer", "ArrowLeft", "2 of 3"),
        ("head", "ArrowRight", "1 of 2"),
        ("layer", "Home", "1 of 3"),
    ):
        page.locator(f"input.{slider}").focus()
        page.keyboard.press(key)
        before = changes(page, before)
        assert page.locator(f".{slider}-value").inner_text() == said
    page.locator("canvas.picture").focus()
    page.keyboard.press("ArrowDown")
    before = changes(page, before)
    page.keyboard.press("ArrowRight")
    before = changes(page, before)
    assert "row 3, column 4" in page.locator("canvas.picture").get_attribute("aria-label")
    page.keyboard.press("Enter")
    changes(page, before)  # held: its frame is drawn whole
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.querySelector('.readout').textContent.startsWith('The class token')")
    assert page.problems == []


def test_opacity_and_no_overlay(page):
    shown = drawn(page)
    page.locator("#opacity").focus()
    page.keyboard.press("End")
    shown = changes(page, shown)
    page.locator("input[name=view][value=picture]").check(force=True)
    changes(page, shown)
    assert page.locator(".legend").is_hidden()


def test_a_class_shows_which_patches_spoke_for_it(page):
    before = drawn(page)
    page.locator("[data-number]").nth(1).click()
    first = changes(page, before)
    assert page.locator("[aria-pressed=true][data-number]").count() == 1
    page.locator("[data-number]").nth(3).click()
    changes(page, first)
    page.locator(".depth summary").click()
    page.wait_for_selector(".layers li")
    assert page.locator(".layers li").count() == 4
    assert page.problems == []


def test_another_model_is_asked_about_the_same_image(page, predictors):
    upload(page, picture())
    page.wait_for_function("() => document.querySelector('.picture').ariaLabel.startsWith('photo.png as first')")
    page.select_option("select.model", "wide")
    page.wait_for_function("() => document.querySelector('.picture').ariaLabel.startsWith('photo.png as wide')")
    name = predictors["wide"](picture()).top(1)[0][0]
    assert page.locator(".top li .name").first.inner_text() == name
    canvas = page.locator("canvas.picture")
    assert canvas.evaluate("canvas => canvas.width / canvas.height") == 2.5
    overlay(page, "attention")
    assert page.locator(".readout").inner_text().startswith("All patches")
    assert page.problems == []


def test_two_models_are_compared_at_the_same_place(page):
    page.select_option("#compare", "wide")
    page.wait_for_function("() => document.querySelectorAll('.panel .top:not(.layers) > li').length === 10")
    overlay(page, "attention")
    page.wait_for_function("() => document.querySelectorAll('.legend:not([hidden])').length === 2")
    before = drawn(page, 1)
    over(page, 0.9, 0.9)
    changes(page, before, 1)
    assert [text.split(" attends")[0] for text in page.locator(".readout").all_inner_texts()] == [
        "The patch in row 4, column 4",
        "The patch in row 2, column 5",
    ]
    left, right = (page.locator(".panel").nth(which).bounding_box() for which in (0, 1))
    assert left["y"] == right["y"] and left["x"] + left["width"] <= right["x"]
    page.select_option("#compare", "")
    assert page.locator(".panel").count() == 1
    assert page.problems == []


@pytest.mark.parametrize(("name", "said"), [("axial", "within columns"), ("resnet", "no attention between patches")])
def test_a_model_without_maps_says_so_and_shows_the_rest(page, name, said):
    page.select_option("select.model", name)
    page.wait_for_selector(".cannot:visible")
    assert said in page.locator(".cannot").inner_text()
    assert page.locator("input[name=view][value=attention]").is_disabled()
    page.wait_for_function(f"() => document.querySelector('.picture').ariaLabel.includes('as {name}')")
    page.locator(".learned summary").click()
    if name == "axial":
        page.wait_for_selector("canvas.positions:visible")
        page.wait_for_selector("img.filters:visible")
    else:
        page.wait_for_function("() => document.querySelector('.positions-why').textContent.includes('no positions')")
    assert page.problems == []


def test_positions_and_filters_are_shown_when_looked_at(page):
    page.locator(".learned summary").click()
    page.wait_for_selector("canvas.positions:visible")
    assert page.locator("img.filters").evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
    start = page.locator("canvas.positions").evaluate("canvas => canvas.toDataURL()")
    page.locator("canvas.positions").click(position={"x": 5, "y": 5})
    assert page.locator("canvas.positions").evaluate("canvas => canvas.toDataURL()") != start
    assert "row 1, column 1" in page.locator(".positions-readout").inner_text()
    assert page.problems == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"hello, I am a text", "not an image in a known format"),
        (b"", "is empty"),
        (b"\0" * (1 << 20 | 1), "too large: 1.0 MB"),
        (picture()[:200], "truncated"),
    ],
    ids=["text", "empty", "too large", "truncated"],
)
def test_what_cannot_be_used_is_refused_in_words_and_the_page_goes_on(page, data, said):
    before = drawn(page)
    upload(page, data, "note.png")
    page.wait_for_selector("#notice.error:visible")
    assert said in page.locator("#notice").inner_text()
    page.locator("#examples button").nth(3).click()
    changes(page, before)
    assert page.locator("#notice").is_hidden()


def test_a_busy_server_is_asked_again_when_it_said_so(page):
    asked = []

    def refuse_once(route):
        asked.append(time.monotonic())
        if len(asked) == 1:
            route.fulfill(status=503, headers={"Retry-After": "1"}, json={"error": "busy; ask again in a moment"})
        else:
            route.continue_()

    page.route("**/page/look?*", refuse_once)
    before = drawn(page)
    page.locator("#examples button").nth(3).click()
    page.wait_for_selector(".busy:has-text('busy')")
    changes(page, before)
    assert len(asked) == 2 and asked[1] - asked[0] >= 0.9
    assert page.locator("#notice").is_hidden()


def test_a_server_that_is_gone_is_said(page):
    page.route("**/page/look?*", lambda route: route.abort())
    page.locator("#examples button").nth(3).click()
    page.wait_for_selector("#notice.error:visible")
    assert "does not answer" in page.locator("#notice").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it_in_its_width(open_page, scheme):
    page = open_page(360, 740, color_scheme=scheme, has_touch=True, is_mobile=True)
    page.select_option("#compare", "wide")
    overlay(page, "attention")
    page.locator("details").evaluate_all("all => all.forEach(details => { details.open = true; })")
    page.wait_for_function("() => document.querySelectorAll('canvas.positions:not([hidden])').length === 2")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator("#photo").is_visible()
    before = drawn(page)
    page.locator("canvas.picture").first.tap(position={"x": 20, "y": 20})
    changes(page, before)
    for ink, paper in (("body", "body"), (".readout", ".panel"), ("#choose", "#choose"), (".hint", ".where")):
        colours = [
            page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).{name}")
            for selector, name in ((ink, "color"), (paper, "backgroundColor"))
        ]
        dark, light = sorted(map(luminance, colours))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, colours)
    assert page.problems == []


def test_everything_that_can_be_used_has_a_name(page):
    page.select_option("#compare", "wide")
    unnamed = """[...document.querySelectorAll('button, select, input:not([hidden]), canvas[tabindex], img[src]')].filter(one =>
        !(one.ariaLabel || one.textContent.trim() || one.labels?.[0]?.textContent.trim() || one.hasAttribute('alt')))
        .map(one => one.outerHTML)"""
    assert page.evaluate(unnamed) == []
