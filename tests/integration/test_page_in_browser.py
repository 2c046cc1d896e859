"""The page in a real browser, where there is one: Debian's Chromium, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.report.page import page
from tests.support.make_result import make_result
from tests.unit.test_page import of_batches, of_thousand

playwright = pytest.importorskip("playwright.sync_api", reason="scripts/install_browser.sh")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="scripts/install_browser.sh")

READ = "window.drawn ? window.drawn : null"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.mark.parametrize(
    "result",
    [
        pytest.param(make_result(), id="experiment"),
        pytest.param(of_batches(), id="four"),
        pytest.param(of_batches(fails=True), id="failures"),
        pytest.param(of_batches(energy=False), id="no energy"),
        pytest.param(of_thousand(), id="thousand"),
    ],
)
def test_a_page_draws_without_a_word_or_a_request(
    browser: Any, result: Any, tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    file.write_text(page(result), "utf-8")
    opened = browser.new_context(offline=True, viewport={"width": 400, "height": 800}).new_page()
    said, asked = [], []
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("console", lambda message: said.append(message.text))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(file.as_uri())
    drawn = opened.evaluate(READ)
    assert (said, asked) == ([], [file.as_uri()])
    assert opened.evaluate("document.documentElement.scrollWidth") <= 400
    if drawn is not None:
        for point in drawn["points"]:
            figures = result.configurations[point["index"]].figures
            assert point["x"] == pytest.approx(1000 / figures["tpot_ms.p90"].mean, rel=1e-6)
        opened.click("#points summary")
        opened.wait_for_selector("#points tbody tr")
        rows = opened.evaluate("document.querySelectorAll('#points tbody tr').length")
        assert rows == len(result.configurations)
