"""The page in a real browser: a box is drawn, pictures come, mistakes are told, a run is cancelled,
and nothing is asked of another machine."""

import json
import re
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.kit.browser import chromium, needs_chromium

pytestmark = [
    needs_chromium,
    pytest.mark.skipif(find_spec("gradio") is None, reason="needs gradio"),
]

BOXES = "cat=0,0.2,0.45,0.8\nfrog=0.55,0.2,1,0.8"  # that the page begins with


@pytest.fixture
def browser():
    with chromium() as driver:
        yield driver


@pytest.fixture
def address():
    """Of the command, as it is typed; it says it when the model is loaded."""
    command = [sys.executable, "-m", "attncontrol", "app", "--port", str(free_port())]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        yield re.search(r"http://127\.0\.0\.1:\d+/", server.stderr.readline())[0]
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=60)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Form:
    """What is seen of the page."""

    def __init__(self, browser, address):
        self.browser = browser
        browser.get(address)
        self.until(lambda: self.all(".ac-run"))

    def all(self, selector):
        found = self.browser.find_elements(By.CSS_SELECTOR, selector)
        return [each for each in found if each.is_displayed()]

    def one(self, selector):
        return self.until(lambda: self.all(selector))[0]

    def until(self, condition):
        return WebDriverWait(self.browser, 60, 0.1).until(lambda _: condition())

    def write(self, selector, text, end=Keys.TAB):
        field = self.one(f"{selector} input, {selector} textarea")
        field.click()
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text, end)

    def click(self, selector):
        self.browser.execute_script("arguments[0].click()", self.one(selector))

    def said(self, text):
        def tells():
            return any(text in each.text for each in self.all(".ac-message"))

        return self.until(tells)

    def lines(self):
        return self.one(".ac-lines textarea").get_property("value")


def test_the_page(browser, address):
    form = Form(browser, address)
    form.write(".ac-text", "a red cat and a big dog")
    form.until(lambda: "big → dog" in form.one(".ac-parse").text)
    form.write(".ac-method", "placement", Keys.ENTER)
    board = form.one(".ac-board")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", board)
    width, height = board.size["width"], board.size["height"]
    drawn = ActionChains(browser, 20).move_to_element_with_offset(
        board, round(-0.4 * width), round(-0.3 * height)
    )
    drawn.click_and_hold().move_by_offset(round(0.5 * width), round(0.5 * height))
    drawn.release().perform()
    form.until(lambda: form.lines() != BOXES)
    kept, other = form.lines().split("\n")
    assert [float(side) for side in kept.removeprefix("cat=").split(",")] == pytest.approx(
        [0.1, 0.2, 0.6, 0.7], abs=0.02
    )
    assert other == BOXES.split("\n")[1]

    form.click(".ac-run")
    form.said("'frog' is not in the prompt 'a red cat and a big dog'")
    form.write(".ac-lines", "cat=0.1,0.2,0.6,0.7")
    form.write(".ac-seeds", "3")
    browser.execute_script("document.querySelectorAll('button.label-wrap')[0].click()")
    form.write(".ac-steps", "2")
    form.click(".ac-run")
    arms = form.until(lambda: form.all(".ac-arm"))
    assert [each.get_attribute("data-arm") for each in arms] == ["plain", "placement"]
    assert [each.text for each in form.all(".ac-words figcaption")] == ["cat", "cat"]
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('.ac-arm img')].map((each) => each.naturalWidth)"
    )
    assert sizes == [128] * 4

    form.write(".ac-steps", "900")
    form.click(".ac-run")
    form.said(", step ")
    form.click(".ac-cancel")
    form.said("Cancelled")
    assert len(form.all(".ac-arm")) == 2

    asked = [json.loads(each["message"])["message"] for each in browser.get_log("performance")]
    urls = [
        each["params"]["request"]["url"]
        for each in asked
        if each["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in urls if not url.startswith((address, "data:", "blob:"))] == []
    assert [each for each in browser.get_log("browser") if each["level"] == "SEVERE"] == []
