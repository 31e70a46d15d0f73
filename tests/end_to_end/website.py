"""The web page of a server as somebody uses it: visited, given an image, pointed at."""

import io

import numpy as np
from PIL import Image


def watched(context):
    """Return a page that notes what it asks for and what goes wrong."""
    page = context.new_page()
    page.set_default_timeout(15_000)
    page.problems, page.asked = [], []
    page.on("console", lambda message: page.problems.append(message.text))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("request", lambda asked: page.asked.append(asked.url))
    return page


def visit(page, address):
    page.goto(address)
    page.wait_for_selector(".top li")
    return page


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
