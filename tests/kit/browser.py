"""A page of ours in headless Chromium."""

import shutil
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
DRIVER = shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="needs the programs chromium and chromedriver "
    "(Debian: apt install chromium chromium-driver)",
)


@contextmanager
def chromium():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1500,1100",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


class OpenPage:
    """A file in the browser, when it says that it is ready."""

    def __init__(self, browser, file, seconds=10):
        self.browser = browser
        self.logs()
        browser.get(file.as_uri())
        WebDriverWait(browser, seconds, 0.02).until(
            lambda b: b.execute_script("return document.documentElement.dataset.ready") == "true"
        )

    def logs(self):
        """Messages of the console, and the addresses that were asked for."""
        asked = [
            entry["message"]
            for entry in self.browser.get_log("performance")
            if "requestWillBeSent" in entry["message"]
        ]
        return self.browser.get_log("browser"), asked

    def all(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return self.browser.find_element(By.CSS_SELECTOR, selector)
