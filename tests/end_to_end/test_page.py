"""The report in a real browser, without a network: everything is there, on a wide screen and on a narrow one, by day and night."""

import re
import shutil

import pytest

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SCREENS = {"laptop": (1280, 800, "light"), "phone": (390, 844, "dark")}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: install it to see the page in a browser")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as engine:
        opened = engine.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(params=SCREENS.values(), ids=SCREENS.keys())
def page(request, browser, trained):
    width, height, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    opened = context.new_page()
    opened.problems, opened.requests_made = [], []
    opened.on("console", lambda message: opened.problems.append(message.text))
    opened.on("pageerror", lambda error: opened.problems.append(str(error)))
    opened.on("request", lambda asked: opened.requests_made.append(asked.url))
    opened.goto((trained / "report" / "index.html").as_uri())
    yield opened
    context.close()


def test_the_page_asks_for_nothing_and_complains_of_nothing(page):
    asked = [url for url in page.requests_made if not url.startswith("data:")]
    assert asked == [page.url] and page.problems == []


def test_every_picture_is_drawn(page):
    broken = "[...document.images].filter(image => !image.complete || image.naturalWidth === 0).length"
    assert page.evaluate(broken) == 0
    sizes = page.evaluate("[...document.querySelectorAll('figure svg')].map(s => s.getBoundingClientRect().width)")
    assert len(sizes) == 5 and all(size > 100 for size in sizes)


def test_nothing_stands_out_of_the_screen(page):
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_text_can_be_told_from_its_background(page):
    """WCAG's contrast of 4.5 to 1, for the body and for the quieter text."""
    for selector in ("body", ".soft"):
        ink = page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).color")
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, selector


def luminance(colour):
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_reader_sees_the_verdict_first_and_can_open_the_settings(page):
    assert re.search(r"the model named\s+\d right", page.locator("p.verdict").inner_text())
    assert page.locator("p.verdict").bounding_box()["y"] < 300
    settings = page.locator("details pre")
    assert not settings.is_visible()
    page.locator("summary").click()
    assert settings.is_visible() and '"train_data"' in settings.inner_text()
