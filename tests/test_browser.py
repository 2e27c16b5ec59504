"""Pages in a browser without a server and without network, clicked through as a person would."""

import shutil
from pathlib import Path

import pytest
import toy
from test_bench_run import config, write_suite

from robolearn.bench.run import run
from robolearn.report import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="install Chromium to click through pages")
PHONE = {"width": 390, "height": 800}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The folder of a run of two agents; videos of all episodes."""
    folder = tmp_path_factory.mktemp("pages")
    suite = write_suite(folder, episodes=2)
    settings = config(folder, "able=expert", "again=expert", suite=str(suite), videos=2)
    run(settings)
    return settings.out


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as tool:
        chromium = tool.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def show(browser):
    """Opens a file; at the end nothing may have gone wrong, or have been looked for elsewhere."""
    complaints, elsewhere = [], []
    context = browser.new_context(offline=True, viewport=PHONE, is_mobile=True, has_touch=True)

    def opened(path: Path):
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else 0)
        page.on("request", lambda asked: elsewhere.append(asked.url))
        page.goto(path.as_uri())
        return page

    yield opened
    context.close()
    assert complaints == []
    assert [url for url in elsewhere if not url.startswith(("file:", "data:", "blob:"))] == []


def plays(video):
    """Whether a film can be decoded and has a length."""
    return video.evaluate(
        """async film => {
            film.preload = "auto"; film.muted = true; await film.play(); film.pause();
            return film.error === null && film.duration > 0 && film.videoWidth > 0;
        }"""
    )


def test_every_cell_of_a_leaderboard_leads_to_its_episodes(measured, show):
    page = show(measured / "bench.html")
    links = page.locator("td a[href^='#cell-']")
    assert links.count() == 4  # two tasks, two agents
    for k in range(links.count()):
        page.evaluate("scrollTo(0, 0)")
        links.nth(k).click()
        cell = page.locator(links.nth(k).get_attribute("href").replace(".", r"\."))
        playwright.expect(cell).to_be_in_viewport()
        assert "seeds 0–1" in cell.inner_text().replace("\n", " ")
    films = page.locator("video")
    assert films.count() == 8
    assert plays(films.first)


def test_every_film_of_a_report_is_led_to_and_plays(measured, tmp_path, show):
    write_report(measured / "able" / "Toy", None, tmp_path / "report.html")
    page = show(tmp_path / "report.html")
    links = page.get_by_role("link", name="watch")
    assert links.count() == 2
    for k in range(links.count()):
        links.nth(k).click()
        film = page.locator(links.nth(k).get_attribute("href"))
        playwright.expect(film).to_be_in_viewport()
        assert plays(film if film.evaluate("e => e.tagName") == "VIDEO" else film.locator("video"))
    assert toy.ENV_ID in page.inner_text("body")


def test_a_page_can_be_read_on_a_telephone(measured, show):
    """Tables and charts that are wider than the window scroll by themselves."""
    page = show(measured / "bench.html")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert page.evaluate("innerWidth") == PHONE["width"]  # and was not made small to fit
    cut = """() => [...document.querySelectorAll("table, svg")].filter(wide => {
        let box = wide;
        while (box && !["auto", "scroll"].includes(getComputedStyle(box).overflowX))
            box = box.parentElement;
        return !box && wide.getBoundingClientRect().right > innerWidth + 1;
    }).length"""
    assert page.evaluate(cut) == 0


def test_a_page_follows_the_theme(measured, show):
    page = show(measured / "bench.html")
    seen = []
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        style = "getComputedStyle(document.body)"
        seen.append(page.evaluate(f"[{style}.backgroundColor, {style}.color]"))
    (paper, ink), (dark_paper, dark_ink) = seen
    assert len({paper, ink, dark_paper, dark_ink}) >= 3
    assert paper != dark_paper
