"""The report in headless Chromium: nothing loaded, nothing logged, every size readable."""

import json
from threading import Thread

import pytest

import chromium
from prewrite.report import build_report, compare_runs
from prewrite.report.watch import make_server
from prewrite.run_folder import RunFolder
from run_fixture import make_run, two_instructions

pytest.importorskip("selenium", reason="selenium is not installed")
pytestmark = chromium.MARKS

LONG = (
    "<script>document.title='owned'</script></style><b>bold</b> \U0001f600 \u05e9\u05dc\u05d5\u05dd "
    "\u202egnp.exe\u202c " + "unbroken" * 1_250
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = make_run(tmp_path_factory.mktemp("runs") / "messages", updates=60)
    return build_report(path)


def open_page(browser, url, width=1200):
    chromium.size(browser, width)
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(url)


def requests(browser):
    """Addresses that the page asked for, the page itself left out."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in sent[1:] if not url.startswith("data:")]


def test_no_console_message_and_no_request(browser, report):
    open_page(browser, report.as_uri())
    assert browser.get_log("browser") == []
    assert requests(browser) == []


def test_curves_have_a_point_per_update(browser, report):
    open_page(browser, report.as_uri())
    counts = browser.execute_script(
        "return ['chart-reward', 'chart-kl', 'chart-entropy', 'chart-dev'].map("
        "id => document.querySelector('#' + id + ' polyline').points.numberOfItems)"
    )
    assert counts == [60, 60, 60, 12]
    assert browser.execute_script("return document.querySelectorAll('#chart-dev circle').length") == 12
    assert browser.execute_script("return document.querySelectorAll('#chart-race polyline').length") > 5


def test_hovering_shows_values_and_rewrites_of_that_update(browser, report):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    open_page(browser, report.as_uri())
    chart = browser.find_element(By.ID, "chart-reward")
    ActionChains(browser).move_to_element(chart).perform()
    tip = browser.find_element(By.ID, "tip")
    assert tip.is_displayed() and "reward/mean" in tip.text
    update = tip.text.splitlines()[0]
    assert 25 < int(update.removeprefix("update ")) < 35  # of 60: the pointer is in the middle
    sample = browser.find_element(By.ID, "sample").text
    assert update in sample and "16 rollouts" in sample and "best" in sample
    race = browser.find_element(By.ID, "chart-race")
    ActionChains(browser).move_to_element(race).perform()
    assert "dev items" in tip.text and "#" in tip.text


def test_arrow_keys_move_through_the_updates(browser, report):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    open_page(browser, report.as_uri())
    chart = browser.find_element(By.ID, "chart-kl")
    chart.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert "update 2" in browser.find_element(By.ID, "tip").text


def test_of_several_instructions_one_is_open(browser, tmp_path):
    from selenium.webdriver.common.by import By

    path = make_run(tmp_path / "two", updates=3, test_rows=20)
    two_instructions(path)
    open_page(browser, build_report(path).as_uri(), 390)
    parts = browser.find_elements(By.CSS_SELECTOR, "details[name=instruction]")
    assert [part.get_attribute("open") for part in parts] == ["true", None]
    parts[1].find_element(By.TAG_NAME, "summary").click()
    assert [part.get_attribute("open") for part in parts] == [None, "true"]
    assert "Sort all mail." in parts[1].find_element(By.CSS_SELECTOR, ".card.main").text
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("width", [380, 768, 1200])
def test_no_width_scrolls_sideways(browser, report, width):
    open_page(browser, report.as_uri(), width)
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_hostile_and_endless_text_is_shown_as_text(browser, tmp_path):
    path = make_run(tmp_path / "hostile", rewrite=LONG, updates=3, test_rows=20)
    result = json.loads((path / "result.json").read_text(encoding="utf-8"))
    result["rewrite"] = result["verdict"] = LONG
    (path / "result.json").write_text(json.dumps(result), encoding="utf-8")
    open_page(browser, build_report(path).as_uri(), 380)
    assert browser.get_log("browser") == []
    assert browser.title != "owned"
    shown = browser.execute_script("return document.querySelector('.card.main .text').textContent")
    assert shown == LONG
    assert browser.execute_script("return document.querySelectorAll('main b b, main script[src]').length") == 0
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 380


def test_dark_and_light_both_have_readable_contrast(browser, report):
    contrast = """
        const light = (c) => {
            const [r, g, b] = c.match(/[0-9.]+/g).map((v) => { v /= 255;
                return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const back = light(getComputedStyle(document.body).backgroundColor);
        return ['body', '.quiet', 'h1'].map((s) => {
            const fore = light(getComputedStyle(document.querySelector(s)).color);
            return (Math.max(fore, back) + 0.05) / (Math.min(fore, back) + 0.05); });"""
    backgrounds = set()
    for scheme in ("light", "dark"):
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        open_page(browser, report.as_uri())
        assert min(browser.execute_script(contrast)) >= 4.5  # WCAG 2.1, level AA
        backgrounds.add(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert len(backgrounds) == 2


def test_it_prints(browser, report):
    open_page(browser, report.as_uri())
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})
    assert len(printed["data"]) > 20_000


def test_a_comparison_renders_without_messages(browser, tmp_path):
    paths = [make_run(tmp_path / f"seed{seed}", seed=seed, updates=5, test_rows=40) for seed in (0, 1)]
    (tmp_path / "compare.html").write_text(compare_runs(paths), encoding="utf-8")
    open_page(browser, (tmp_path / "compare.html").as_uri(), 380)
    assert browser.get_log("browser") == [] and requests(browser) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 380


def test_the_live_page_takes_up_new_updates_by_itself(browser, tmp_path):
    from selenium.webdriver.support.ui import WebDriverWait

    path = make_run(tmp_path / "live", finished=False, updates=3)
    server = make_server(path)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        open_page(browser, f"http://127.0.0.1:{server.server_address[1]}/")
        RunFolder.append(path / "metrics.jsonl", [{"step": 4, "reward/mean": 0.9}])
        WebDriverWait(browser, 20).until(lambda b: "4 updates so far" in b.page_source)
        assert browser.get_log("browser") == []
    finally:
        browser.get("about:blank")
        server.shutdown()
        server.server_close()
        thread.join()
