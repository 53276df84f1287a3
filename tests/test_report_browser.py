"""The page of a job in a real browser: what is shown, filters, a picture and its settings, what
texts of others can do, and how soon two thousand pictures are there."""

import io
import random
import shutil
import time

import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from attncontrol.jobs.index import read
from attncontrol.jobs.item import Item
from attncontrol.report.arms import arms_of
from attncontrol.report.page import page
from attncontrol.report.rows import Row
from attncontrol.report.write import prepare
from tests.kit.browser import OpenPage, chromium, needs_chromium
from tests.kit.jobs import job, made, pairs

pytestmark = needs_chromium
OWN = "tests.kit.jobs:redness"


@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        yield driver


class Page(OpenPage):
    def __init__(self, browser, file):
        super().__init__(browser, file, seconds=20)
        WebDriverWait(browser, 10, 0.02).until(lambda _: self.all(".cell, #none:not([hidden])"))

    def titles(self):
        return [title.text for title in self.all(".title span")]

    def wait_cells(self, count):
        WebDriverWait(self.browser, 5, 0.05).until(lambda _: len(self.all(".cell")) == count)

    def labels(self):
        """Of all pictures: prompt, method, seed."""
        return [cell.get_attribute("aria-label") for cell in self.all(".cell")]

    def choose(self, key, text):
        Select(self.one(f"#{key}")).select_by_visible_text(text)

    def write(self, key, text):
        self.one(f"#{key}").clear()
        self.one(f"#{key}").send_keys(text)

    def keys(self, *keys):
        ActionChains(self.browser, 20).send_keys(*keys).perform()


def report(folder, scores=()):
    return prepare(folder, list(scores)).write().files[0]


@pytest.fixture
def opened(browser, tmp_path):
    """Two prompts, plain and guided, two seeds; a fifth failed."""
    pairs(tmp_path, losses=(2.0, 1.0, 0.5), refinements=(0, 2, 0))
    bad = Item(prompt="a frog", seed=2, method="auto", step_size=20)
    rows = [*read(tmp_path), made(bad, file=None, error="NonFiniteError: the loss is NaN")]
    job(tmp_path, rows)
    return Page(browser, report(tmp_path, [OWN]))


def test_a_grid_for_every_prompt(opened):
    assert opened.titles() == ["a cat", "a frog"]
    assert opened.one("#lead").text == "9 pictures, 1 failed · model sprites"
    first = opened.all(".block")[0]
    assert [each.text for each in first.find_elements(By.CSS_SELECTOR, ".column")] == [
        "seed 0", "seed 1",
    ]  # fmt: skip
    assert [each.text for each in first.find_elements(By.CSS_SELECTOR, ".row")] == ["plain", "auto"]
    assert [each.text for each in first.find_elements(By.CSS_SELECTOR, ".score")] == [
        "1.000", "1.010", "0.000", "0.010",
    ]  # fmt: skip
    assert opened.all(".failed")[0].text == "failed"
    tops = [cell.location["y"] for cell in opened.all(".cell")[:4]]
    assert tops[0] == tops[1] < tops[2] == tops[3]


def test_pictures_have_their_colors(opened):
    """Red is plain, blue is guided: the small pictures are the right ones."""
    color = """
        const canvas = document.createElement("canvas");
        canvas.width = canvas.height = 1;
        const pen = canvas.getContext("2d");
        pen.drawImage(arguments[0], 0, 0, 1, 1);
        return Array.from(pen.getImageData(0, 0, 1, 1).data.slice(0, 3));
    """
    images = opened.all(".cell img")[:4]
    WebDriverWait(opened.browser, 5, 0.05).until(
        lambda b: all(b.execute_script("return arguments[0].complete", each) for each in images)
    )
    red, _, blue, _ = (opened.browser.execute_script(color, each) for each in images)
    assert red == pytest.approx([255, 0, 0], abs=8)
    assert blue == pytest.approx([0, 0, 255], abs=8)
    shape = images[0].size
    assert shape["width"] / shape["height"] == pytest.approx(1.5, rel=0.02)


def test_the_comparison(opened):
    rows = opened.all(".lines tbody tr")
    assert [row.get_attribute("data-arm") for row in rows] == [
        "plain",
        "auto",
        "auto, step_size 20",
    ]
    assert "against plain, 4 pairs" in rows[1].text
    assert "\u22121.000 (\u22121.000 to \u22121.000)" in rows[1].text
    assert rows[1].find_elements(By.CSS_SELECTOR, ".interval .down")
    assert "1 failed" in rows[2].text


def test_filters(opened):
    opened.write("text", "FROG a")
    opened.wait_cells(5)
    assert opened.titles() == ["a frog"]
    assert opened.one("#count").text == "5 of 9 pictures"
    opened.one("#arms summary").click()
    opened.one('[data-arm="plain"]').click()
    opened.wait_cells(3)
    assert opened.one("#arms summary").text == "Methods: 2 of 3"
    opened.choose("status", "made")
    opened.wait_cells(2)
    opened.write("seeds", "1-3, 9")
    opened.wait_cells(1)
    assert opened.labels() == ["a frog, auto, seed 1"]
    opened.write("seeds", "x")
    assert opened.one("#seeds").get_attribute("aria-invalid") == "true"
    opened.wait_cells(1)  # as before
    opened.write("text", "no such prompt")
    WebDriverWait(opened.browser, 5, 0.05).until(lambda _: opened.one("#none").is_displayed())
    opened.one("#all").click()
    opened.wait_cells(9)
    opened.choose("status", "failed")
    opened.wait_cells(1)
    assert opened.labels() == ["a frog, auto, step_size 20, seed 2: failed"]


def test_layouts_and_order(opened):
    opened.choose("layout", "by method")
    opened.wait_cells(9)
    assert opened.titles() == ["plain", "auto", "auto, step_size 20"]
    opened.choose("sort", "lowest score first")
    assert opened.titles() == ["auto", "plain", "auto, step_size 20"]  # without a score last
    opened.choose("layout", "by seed")
    opened.wait_cells(9)
    assert sorted(opened.titles()) == ["Seed 0", "Seed 1", "Seed 2"]
    columns = [each.text for each in opened.all(".block")[0].find_elements(By.CSS_SELECTOR, ".row")]
    assert columns == ["a cat", "a frog"]


def facts(opened, selector=".settings"):
    terms = opened.all(f"{selector} dt")
    return {
        term.text: term.find_element(By.XPATH, "following-sibling::dd[1]").text for term in terms
    }


def test_a_picture_with_its_settings(opened):
    opened.all(".cell")[2].click()
    assert opened.one("dialog").get_attribute("open") == "true"
    assert opened.one("dialog .prompt").text == "a cat"
    assert facts(opened) == {
        "method": "auto", "seed": "0", "model": "sprites", "time": "1.00 s", "size": "24 \u00d7 16",
    }  # fmt: skip
    assert [each.text for each in opened.all("figcaption")] == ["auto", "plain"]
    assert opened.one("[data-score]").text == "0.000 (plain: 1.000)"
    chart = opened.one(".losses").get_attribute("aria-label")
    assert chart == "3 guided steps, from 2.000 to 0.500; 2 refinements (filled)"
    link = opened.one(".files a").get_attribute("href")
    assert link.startswith("file:///")
    assert link.endswith(".png")
    WebDriverWait(opened.browser, 5, 0.05).until(  # the whole picture takes the small one's place
        lambda b: b.execute_script("return document.querySelector('figure img').src") == link
    )
    opened.keys(Keys.ARROW_LEFT)
    assert [each.text for each in opened.all("figcaption")] == ["plain"]
    opened.keys(Keys.ESCAPE)
    assert not opened.one("dialog").is_displayed()
    focused = opened.browser.execute_script("return document.activeElement.dataset.index")
    assert focused == "1"


def test_an_edit_beside_its_source(browser, tmp_path):
    items = [
        Item(prompt="a cat"),
        Item(prompt="a dog", source="a cat", method="p2p"),
        Item(prompt="a dog", source="a cat", method="replace"),
    ]
    opened = Page(browser, report(job(tmp_path, [made(i, folder=tmp_path) for i in items])))
    opened.all(".cell")[2].click()
    assert [each.text for each in opened.all("figcaption")] == ["replace", "source"]
    opened.one("figure button").click()
    assert opened.one("dialog .prompt").text == "a cat"
    assert [each.text for each in opened.all("figcaption")] == ["plain"]


def test_why_a_picture_failed(opened):
    opened.one(".cell:has(.failed)").click()
    assert opened.one(".failure").text == "NonFiniteError: the loss is NaN"
    assert facts(opened)["step size"] == "20"
    assert opened.all(".files") == []


def test_keys_move_among_pictures(opened):
    opened.browser.execute_script("document.querySelector('.cell').focus()")
    opened.keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ENTER)
    assert facts(opened)["method"] == "auto"
    assert facts(opened)["seed"] == "1"


HOSTILE = (
    "<script>document.title='owned'</script>",
    "</script><img src=x onerror=\"document.title='owned'\">",
    "<!--<script>",
    "\"quotes\" 'both' `ticks` ${document.title='owned'} {{ 7 * 7 }}",
    "=cmd|' /C calc'!A0",
    "<b>bold</b> & &lt;i&gt;",
)


def test_texts_are_shown_as_texts(browser, tmp_path):
    """Those of prompts, methods, settings, errors and files."""
    pictures = []
    for k, text in enumerate(HOSTILE):
        item = Item(prompt=text, seed=k, method=f"m:{text}", negative=text,
                    parameters={"__proto__": text, text: k})  # fmt: skip
        pictures.append(made(item, file=None, error=text))
    pictures.append(made(Item(prompt="a link", seed=9), folder=tmp_path))
    pictures.append(made(Item(prompt="a link", seed=10), file="javascript:alert(1)"))
    opened = Page(browser, report(job(tmp_path, pictures)))
    assert opened.titles() == [*HOSTILE, "a link"]
    opened.all(".cell")[1].click()
    assert opened.one(".failure").text == HOSTILE[1]
    assert facts(opened)["negative"] == HOSTILE[1]
    opened.keys(Keys.ESCAPE)
    assert opened.all("main img[src='x'], main b, dialog b") == []
    assert not browser.title.startswith("owned")
    addresses = browser.execute_script(
        "return JSON.parse(document.getElementById('data').textContent).pictures.map((p) => p.file)"
    )
    assert not [each for each in addresses if each and not each.startswith("./pictures/")]
    console, asked = opened.logs()
    assert console == []
    assert not [message for message in asked if '"url":"http' in message]


def test_nothing_is_asked_of_the_network(opened):
    opened.all(".cell")[0].click()
    console, asked = opened.logs()
    assert console == []
    assert asked
    assert not [message for message in asked if '"url":"http' in message]


def test_a_picture_that_is_gone_stays_small(browser, tmp_path):
    file = report(pairs(tmp_path, losses=()))
    shutil.rmtree(tmp_path / "pictures")
    opened = Page(browser, file)
    opened.all(".cell")[0].click()
    time.sleep(0.3)
    image = opened.one("figure img")
    assert image.get_attribute("src").startswith("data:image/webp;base64,")
    assert browser.execute_script("return arguments[0].naturalWidth", image) == 24


def test_dark_and_light(opened):
    ground = "return getComputedStyle(document.documentElement).backgroundColor"
    shades = [opened.browser.execute_script(ground)]
    opened.one("#theme").click()
    shades.append(opened.browser.execute_script(ground))
    assert sorted(shades) == ["rgb(18, 19, 22)", "rgb(246, 246, 243)"]


@pytest.mark.parametrize("width", [400, 1600])
def test_pages_fit_into_narrow_and_wide_windows(browser, tmp_path, width):
    """Columns that do not fit go on below."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        folder = pairs(tmp_path, [f"a {'very ' * 60}long{'n' * 90} prompt"], seeds=range(12))
        opened = Page(browser, report(folder, [OWN]))
        browser.execute_script("scrollTo(0, document.body.scrollHeight)")
        opened.wait_cells(24)
        rights = [
            each.rect["x"] + each.rect["width"] for each in opened.all(".cell, .title, #lead")
        ]
        assert max(rights) <= width
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        rows = {each.rect["y"] for each in opened.all(".cell")}
        assert len(rows) == (8 if width == 400 else 4)
        opened.all(".cell")[0].click()
        dialog = opened.one("dialog").rect
        assert dialog["x"] >= 0
        assert dialog["x"] + dialog["width"] <= width
        assert opened.logs()[0] == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_two_thousand_pictures_are_there_soon(browser, tmp_path):
    """Small pictures of noise, which are larger than those of pictures: 7 MB. What is far from the
    window is not drawn, and decoded when it comes near."""
    rng, small = random.Random(0), []
    for _ in range(40):
        picture, data = Image.frombytes("RGB", (128, 128), rng.randbytes(49152)), io.BytesIO()
        picture.resize((40, 40)).resize((128, 128)).save(data, "WEBP", quality=60)
        small.append(data.getvalue())
    items = [
        Item(prompt=f"prompt {p}", seed=s, method=m)
        for p in range(50) for m in ("plain", "auto", "syngen", "conform") for s in range(10)
    ]  # fmt: skip
    rows = [
        Row(made(item, losses=(2.0,) * 20), arm, small[k % 40], (128, 128), {"s": k / 2000})
        for k, (item, arm) in enumerate(zip(items, arms_of(items), strict=True))
    ]
    file = tmp_path / "report.html"
    file.write_text(page(rows, ["s"], tmp_path, file), "utf-8")
    assert file.stat().st_size > 4e6
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    try:
        opened = Page(browser, file)
        told = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    finally:
        browser.execute_cdp_cmd("Performance.disable", {})
    spent = {each["name"]: each["value"] for each in told}
    assert spent["TaskDuration"] < 3  # seconds of the page's own thread, whatever else runs
    assert 0 < len(opened.all(".cell")) <= 200
    assert len(opened.all(".grid-section")) == 50
    last = opened.all(".block")[-1]
    assert last.find_elements(By.CSS_SELECTOR, ".cell") == []
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", last)
    WebDriverWait(browser, 5, 0.05).until(lambda _: last.find_elements(By.CSS_SELECTOR, ".cell"))
    assert opened.logs()[0] == []
