"""The page of a report in headless Chromium: it opens without an error, and does what a click, a word or a key asks for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import MARKUP, deep, reports

import fxpass
from fxpass import Report

pytestmark = pytest.mark.browser
SIDES = ("before", "after")


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1440,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(shutil.which("chromedriver"))))
    yield made
    made.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    made = {"step": reports(), "deep": [deep(48, 90)], "none": [Report("empty", unfit="KV001 grad is enabled"), *reports()]}
    for name, shown in made.items():
        fxpass.html(shown, folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in made}


@pytest.fixture(params=["step", "deep", "none"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def page(driver: Any, pages: dict[str, Path]) -> Iterator[Any]:
    """The page of a step; whatever is done to it, nothing is said on the console and nothing is loaded."""
    driver.get(pages["step"].as_uri())
    yield driver
    assert driver.get_log("browser") == []
    assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0


def find(page: Any, selector: str) -> list[Any]:
    return list(page.find_elements("css selector", selector))


def one(page: Any, selector: str) -> Any:
    (found,) = find(page, selector)
    return found


def texts(page: Any, selector: str) -> list[str]:
    return [element.text for element in find(page, selector)]


def labeled(page: Any, side: str, label: str) -> Any:
    return next(element for element in find(page, f"#{side} [aria-label]") if element.get_attribute("aria-label") == label)


def test_it_opens_in_time(driver: Any, pages: dict[str, Path], name: str) -> None:
    driver.get(pages[name].as_uri())
    took = driver.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert 0 < took < 3000 and len(find(driver, "#after .item")) >= 2 and driver.get_log("browser") == []


def test_many_layers_are_folded_and_one_opens(driver: Any, pages: dict[str, Path]) -> None:
    driver.get(pages["deep"].as_uri())
    assert len(find(driver, "#after .item")) < 20
    labeled(driver, "after", "open layers.0 to layers.47").click()
    assert len(find(driver, "#after .item.closed")) == 48
    labeled(driver, "after", "open layers.0").click()
    assert len(find(driver, "#after .item.op")) >= 45
    one(driver, "#fold").click()
    assert len(find(driver, "#after .item")) < 20 and driver.get_log("browser") == []


def test_a_click_shows_op_shape_and_line(page: Any) -> None:
    labeled(page, "before", "div").click()
    shown = one(page, ".selection").text
    assert "aten.div" in shown and "f32[2, 1, 8]" in shown and "x = series[:, -1:] / scale" in shown and "pages.py:" in shown
    assert len(find(page, ".item.selected")) == 2  # in both panes
    next(link for link in find(page, ".selection .link") if link.text == "mean").click()
    assert "aten.mean" in one(page, ".selection").text
    one(page, ".selection .close").click()
    assert find(page, ".selection") == [] and find(page, ".selected") == []


def test_keys_do_what_clicks_do(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    labeled(page, "after", "div").send_keys(Keys.ENTER)
    assert "aten.div" in one(page, ".selection").text
    one(page, "body").send_keys(Keys.ESCAPE)
    assert find(page, ".selection") == []
    next(card for card in find(page, ".site") if "rows = self.k" in card.text).find_element("css selector", ".go").click()
    one(page, "body").send_keys(Keys.ESCAPE, Keys.ESCAPE)
    assert find(page, ".lit") == [] and not one(page, "#notice").is_displayed()
    one(page, "body").send_keys("/")
    assert page.switch_to.active_element.get_attribute("id") == "search"


def test_what_the_pointer_is_on_is_shown_in_both_panes(page: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(page).move_to_element(labeled(page, "before", "div")).perform()
    assert [e.get_attribute("aria-label") for e in find(page, ".item.pointed")] == ["div", "div"]
    assert len(find(page, "#after .edges .pointed")) >= 2


def test_the_legend_has_the_colors_that_there_are(page: Any) -> None:
    assert {"added", "static core", "epilogue"} <= set(texts(page, "#legend .entry"))
    find(page, "#graphs button")[0].click()
    assert "added" not in texts(page, "#legend .entry")


def test_matched_nodes_are_aligned(page: Any) -> None:
    items = [find(page, f"#{side} .item") for side in SIDES]
    places = [{item.get_attribute("data-key"): item.get_attribute("transform") for item in side} for side in items]
    both = places[0].keys() & places[1].keys()
    assert len(both) >= 10 and all(places[0][key] == places[1][key] for key in both)
    assert places[0].keys() - both and places[1].keys() - both


def test_parts_are_shaded(page: Any) -> None:
    parts = [one(page, f"#after .open.part-{name} > rect") for name in ("prologue", "core", "epilogue")]
    fills = [part.value_of_css_property("fill") for part in parts]
    assert len(set(fills)) == 3
    assert {e.value_of_css_property("fill") for e in find(page, "#before .open.part > rect")} == {"none"}


def test_the_flow_from_position_to_slice_to_mask(page: Any) -> None:
    site = next(card for card in find(page, ".site") if "rows = self.k" in card.text)
    site.find_element("css selector", ".go").click()
    lit = [" ".join(e.get_attribute("aria-label") for e in find(page, f"#{side} .lit[aria-label]")) for side in SIDES]
    assert "slice" in lit[0] and "start" in lit[0] and "scaled_dot_product_attention" in lit[0]
    assert "lt" in lit[1] and "start" in lit[1] and "slice" not in lit[1]
    assert len(find(page, "#after .item.role-mask.lit")) >= 1 and len(find(page, "#after .edges .lit")) >= 4
    assert find(page, "#after [aria-label=cat]") == []
    assert "layers.0" in one(page, "#notice").text
    one(page, "#notice button").click()
    assert find(page, ".lit") == [] and len(find(page, "#after [aria-label=cat]")) == 1


def test_search_finds_what_is_folded(page: Any) -> None:
    search = one(page, "#search")
    search.send_keys("scaled_dot layers.1")
    assert texts(page, "#results b")[0] == "scaled_dot_product_attention_default_1"
    search.send_keys("\ue007")  # the return key
    assert len(find(page, "#after .item.selected")) == 1 and "layers.1.b" in one(page, ".selection").text
    search.clear()
    search.send_keys("rows = self.k")
    assert len(find(page, "#results b")) >= 2
    search.send_keys("no such thing")
    assert one(page, "#results").text == "nothing found"


def test_names_stay_text(page: Any) -> None:
    assert find(page, "img") == [] and page.execute_script("return window.hit") is None
    assert any(MARKUP in text for text in texts(page, ".site .buffer"))
    one(page, "#search").send_keys("<img")
    assert any(MARKUP in text for text in texts(page, "#results .quiet"))
    assert find(page, "img") == []


def test_dark_and_light(page: Any) -> None:
    def back() -> Any:
        return one(page, "body").value_of_css_property("background-color")

    light = back()
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
    page.refresh()
    dark = back()
    one(page, "#theme").click()
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert light != dark and back() == light


def test_a_graph_that_was_not_drawn_says_why(driver: Any, pages: dict[str, Path]) -> None:
    driver.get(pages["none"].as_uri())
    find(driver, "#graphs button")[0].click()
    assert "KV001 grad is enabled" in one(driver, "#side").text
    assert find(driver, ".item") == [] and driver.get_log("browser") == []
