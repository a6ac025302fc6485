"""The page in a real browser: nothing asked for, nothing complained of, timelines drawn, zoomed and pointed at.

Needs Chromium and its driver (Debian, Ubuntu: apt install chromium chromium-driver) and selenium.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from specsim import api
from specsim.report.interactive import timeline_data
from specsim.report.page import page
from tests.specsim import plans
from tests.specsim.test_page import EVIL, evil_page

pytest.importorskip("selenium", reason="needs selenium, which is not installed")

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs Chromium and chromedriver on the path")

#: colours of the first timeline's canvas, with the pixels of each
COLOURS = """
const canvas = document.querySelector(".timeline canvas");
const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
const count = {};
for (let i = 0; i < pixels.length; i += 4) {
  if (pixels[i + 3] < 255) continue;
  const colour = `rgb(${pixels[i]}, ${pixels[i + 1]}, ${pixels[i + 2]})`;
  count[colour] = (count[colour] || 0) + 1;
}
return count;
"""
SWATCHES = """
return [...document.querySelectorAll(".timeline:first-of-type .swatch")].map(s => getComputedStyle(s).backgroundColor);
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in ("--headless=new", "--window-size=1200,900", "--no-first-run", "--disable-background-networking"):
        options.add_argument(argument)
    if os.geteuid() == 0:  # in a container, where Chromium's own sandbox cannot be set up
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Any:
    """The page of the tiny plan, from a file."""
    show(browser, page(plans.plan(), api.simulate(plans.plan())), tmp_path)
    return browser


def show(browser: Any, text: str, folder: Path) -> str:
    """Open the page, and return its address. What the browser said of others before is forgotten."""
    (folder / "report.html").write_text(text, encoding="utf-8")
    address = (folder / "report.html").as_uri()
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(address)
    return address


def requests(browser: Any) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def state(browser: Any) -> dict[str, float]:
    """What the first timeline shows: `from` and `to` in seconds, and how many tasks are `shown`."""
    found = browser.execute_script("return {...document.querySelector('.timeline').dataset};")
    return {name: float(found[name]) for name in ("from", "to", "shown")}


def canvas(browser: Any) -> Any:
    """That of the first timeline, wholly in view: the driver counts offsets from the middle of what is."""
    found = browser.find_element(By.CSS_SELECTOR, ".timeline canvas")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'});", found)
    return found


def press(browser: Any, do: str) -> None:
    browser.find_element(By.CSS_SELECTOR, f".timeline button[data-do={do}]").click()


def test_a_page_opens_without_an_error_and_without_a_request(browser: Any, tmp_path: Path) -> None:
    address = show(browser, page(plans.plan(), api.simulate(plans.plan())), tmp_path)
    press(browser, "in")
    assert requests(browser) == [address]
    assert browser.get_log("browser") == []


def test_the_timeline_is_drawn_in_the_colours_of_its_legend(opened: Any) -> None:
    found = timeline_data(api.simulate(plans.plan()).round)
    assert state(opened) == {"from": 0.0, "to": found["end"], "shown": len(found["name"])}
    *kinds, critical = opened.execute_script(SWATCHES)
    pixels = opened.execute_script(COLOURS)
    total = [0.0] * len(kinds)
    for kind, seconds in zip(found["kind"], found["seconds"], strict=True):
        total[kind] += seconds
    longest = total.index(max(total))
    assert pixels[kinds[longest]] > 1000
    assert pixels[critical] > 100


def test_zooming_shows_fewer_tasks_and_all_shows_all(opened: Any) -> None:
    whole, drawn = state(opened), opened.execute_script(COLOURS)
    for _ in range(3):
        press(opened, "in")
    near = state(opened)
    assert near["to"] - near["from"] == pytest.approx((whole["to"] - whole["from"]) / 8)
    assert near["shown"] < whole["shown"]
    assert opened.execute_script(COLOURS) != drawn
    press(opened, "out")
    assert state(opened)["to"] - state(opened)["from"] == pytest.approx((whole["to"] - whole["from"]) / 4)
    press(opened, "all")
    assert state(opened) == whole
    assert opened.execute_script(COLOURS) == drawn


def test_dragging_and_keys_move_and_a_double_click_zooms_where_it_is(opened: Any) -> None:
    whole = state(opened)
    ActionChains(opened).double_click(canvas(opened)).perform()
    half = state(opened)
    assert half["to"] - half["from"] == pytest.approx((whole["to"] - whole["from"]) / 2)
    ActionChains(opened).drag_and_drop_by_offset(canvas(opened), 100, 0).perform()
    assert state(opened)["from"] < half["from"]
    canvas(opened).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert state(opened)["from"] > half["from"]
    canvas(opened).send_keys("0")
    assert state(opened) == whole
    canvas(opened).send_keys("-", Keys.ARROW_LEFT)  # there is no more to see than all
    assert state(opened) == whole


def test_pointing_at_a_task_says_what_it_is(opened: Any) -> None:
    found = timeline_data(api.simulate(plans.plan()).round)
    tip = opened.find_element(By.CSS_SELECTOR, ".tip")
    assert not tip.is_displayed()
    i = max(range(len(found["name"])), key=lambda i: found["seconds"][i] * (found["bytes"][i] > 0))
    box = canvas(opened).rect
    share = (found["start"][i] + found["seconds"][i] / 2) / found["end"]
    x, y = 104 + share * (box["width"] - 104 - 52), 8 + 30 * found["row"][i] + 10
    ActionChains(opened).move_to_element_with_offset(
        canvas(opened), x - box["width"] / 2, y - box["height"] / 2
    ).perform()
    name, kind, times, moved, *_ = tip.text.splitlines()
    assert name == found["name"][i]
    assert kind.startswith(f"{found['kinds'][found['kind'][i]]} on {found['rows'][found['row'][i]]}")
    assert times.startswith("starts at ")
    assert "takes" in times
    assert moved.endswith("/s")
    ActionChains(opened).move_to_element(opened.find_element(By.TAG_NAME, "h1")).perform()
    assert not tip.is_displayed()


def test_the_page_and_its_pictures_are_dark_by_night_and_light_on_paper(opened: Any) -> None:
    body = "return getComputedStyle(document.body).backgroundColor;"
    ink = "return getComputedStyle(document.querySelector('figure svg text')).fill;"
    day, day_ink, drawn = (opened.execute_script(script) for script in (body, ink, COLOURS))
    night = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", night)
    try:
        assert opened.execute_script(body) != day
        assert opened.execute_script(ink) != day_ink
        assert opened.execute_script(COLOURS) != drawn
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", night | {"media": "print"})
        assert opened.execute_script(body) == day
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def test_names_that_try_to_be_scripts_are_names(browser: Any, tmp_path: Path) -> None:
    address = show(browser, evil_page(), tmp_path)
    assert browser.execute_script("return window.hit;") is None
    assert EVIL in browser.find_element(By.TAG_NAME, "h1").text
    assert requests(browser) == [address]
    assert browser.get_log("browser") == []
