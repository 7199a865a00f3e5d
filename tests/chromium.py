"""Headless Chromium for tests of pages; `conftest.py` has the fixture `browser`."""

import shutil

import pytest

DRIVER, CHROMIUM = shutil.which("chromedriver"), shutil.which("chromium")
MARKS = [
    pytest.mark.browser,
    pytest.mark.skipif(not (DRIVER and CHROMIUM), reason="no chromium and chromedriver on PATH"),
]


def open_browser():
    """A driver that keeps what pages log and fetch."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(DRIVER))


def size(browser, width, height=900):
    """Make the window of that many pixels."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )
