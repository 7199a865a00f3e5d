"""The page of `prewrite serve` in headless Chromium."""

import json

import pytest

import chromium

pytest.importorskip("selenium", reason="selenium is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from serve.served import BEST, INSTRUCTION, ROWS, ScriptedRewriter, SlowTaskModel, searches, serving

pytestmark = chromium.MARKS
HOSTILE = "<script>document.title='owned'</script><b>bold</b> </p> {{ 7*7 }} \u202egnp.exe\u202c " + "unbroken" * 60


def open_page(browser, url, width=1280):
    chromium.size(browser, width)
    browser.get_log("browser")
    browser.get(f"{url}/")
    wait(browser, lambda b: "at most" in b.find_element("id", "budget").text)


def wait(browser, until):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 20, poll_frequency=0.02).until(until)


def fill(browser, **texts):
    """Put texts into fields and press Search."""
    for name, text in texts.items():
        browser.execute_script("document.getElementById(arguments[0]).value = arguments[1]", name, text)
    browser.find_element("id", "start").click()


def status(browser):
    return browser.find_element("id", "status").text


@pytest.mark.parametrize("width", [390, 1280])
def test_a_search_shows_prompts_as_they_come_and_marks_the_chosen_one(browser, width):
    with serving(searches(task_model=SlowTaskModel(seconds=0.05))) as url:
        open_page(browser, url, width)
        assert "at most 600 questions" in browser.find_element("id", "budget").text
        fill(browser, instruction=INSTRUCTION, rows=ROWS)
        early = wait(browser, lambda b: len(b.find_elements("css selector", "#prompts li")))
        assert "Asking the task model at most" in status(browser)
        wait(browser, lambda b: status(b).startswith("Done"))
        shown = browser.find_elements("css selector", "#prompts li")
        assert len(shown) > early and "on 10 rows" in shown[0].text
        assert len(browser.find_elements("css selector", "#prompts li.chosen")) == 1
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert browser.get_log("browser") == []


def test_the_button_copies_a_prompt(browser):
    with serving(searches()) as url:
        open_page(browser, url)
        granted = {"origin": url, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
        browser.execute_cdp_cmd("Browser.grantPermissions", granted)
        fill(browser, instruction=INSTRUCTION, rows=ROWS)
        wait(browser, lambda b: status(b).startswith("Done"))
        text = browser.execute_script("return document.querySelector('#prompts li .text').textContent")
        browser.find_element("css selector", "#prompts li .copy").click()
        wait(browser, lambda b: b.find_element("css selector", "#prompts li .copy").text == "copied")
        assert browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])") == text
        assert "{input}" in text


@pytest.mark.parametrize("width", [390, 1280])
def test_hostile_text_is_shown_as_text(browser, width):
    rows = "".join(
        json.dumps({"input": f"{HOSTILE} {number}", "output": label}) + "\n"
        for number in range(8)
        for label in ("spam", HOSTILE)
    )
    with serving(searches(rewriter=ScriptedRewriter([HOSTILE, BEST]))) as url:
        open_page(browser, url, width)
        fill(browser, instruction=f"{INSTRUCTION} {HOSTILE}", rows=rows)
        wait(browser, lambda b: status(b).startswith("Done"))
        texts = browser.execute_script(
            "return [...document.querySelectorAll('#prompts .text')].map(e => e.textContent)"
        )
        assert any(text.startswith(f"Please {INSTRUCTION} {HOSTILE}") for text in texts)
        assert browser.title == "prewrite" and not browser.find_elements(
            "css selector", "#prompts p b, #prompts script"
        )
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        fill(browser, rows='{"input": "<b>x</b>"}')
        wait(browser, lambda b: "the pasted rows, line 1" in status(b))
        assert browser.get_log("browser") == []


def test_stop_ends_the_search(browser):
    model = SlowTaskModel(seconds=0.1)
    with serving(searches(task_model=model, calls=2_000)) as url:
        open_page(browser, url)
        fill(browser, instruction=INSTRUCTION, rows=ROWS)
        wait(browser, lambda b: b.find_elements("css selector", "#prompts li"))
        browser.find_element("id", "stop").click()
        wait(browser, lambda b: status(b) == "Stopped.")
        wait(browser, lambda b: b.find_element("id", "start").is_enabled())
        fill(browser, rows="")  # the form itself asks for rows, so nothing is sent
        assert status(browser) == "Stopped."
