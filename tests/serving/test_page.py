"""The page in a real browser: what a person sees, with a mouse, a keyboard and on a phone."""

import os
import re

import numpy as np
import pytest
import soundfile

from tests.support import browser as browser_maker
from tests.support.paths import ROOT
from tests.support.running_app import running_app

pytestmark = pytest.mark.integration

SHOTS = ROOT / "build" / "screenshots"


@pytest.fixture(scope="module")
def app(model_dir):
    with running_app(model_dir / "export", "--max_upload_mb=3") as app:
        yield app


@pytest.fixture(scope="module")
def chromium():
    try:
        found = browser_maker.chromium()
    except browser_maker.NoBrowser as error:
        pytest.skip(str(error))
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found.path,
            env=os.environ | found.environment,
            args=["--no-sandbox", "--disable-gpu"],  # root, as in most containers, has none
        )
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, app):
    """The page; a test fails with any error in it, or any request to another host."""
    context = chromium.new_context(viewport={"width": 1000, "height": 900})
    page = context.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request",
        lambda request: (
            request.url.startswith((app.url, "blob:", "data:")) or problems.append(request.url)
        ),
    )
    page.goto(app.url)
    yield page
    context.close()
    assert not problems


@pytest.fixture(scope="module")
def song(library):
    """An mp3 of the library: real where the real clips are there, else a synthetic one."""
    return max(library.audio_dir.rglob("*.mp3"), key=os.path.getsize)


def shoot(page, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def colors(page, canvas: str) -> int:
    """How many different colors a canvas shows."""
    return page.evaluate(
        """(id) => {
          const canvas = document.getElementById(id);
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return new Set(new Uint32Array(data.buffer)).size;
        }""",
        canvas,
    )


def test_a_song(page, app, song):
    page.set_input_files("#file", song)
    page.wait_for_selector("#result", state="visible")
    assert page.inner_text("#song") == song.name
    assert page.evaluate("document.activeElement.id") == "song"
    answer = app.predict(song.read_bytes(), query="?explain=true").json
    assert page.inner_text("#label") == answer["label"]
    share = f"{100 * answer['probabilities'][answer['label']]:.1f} %"
    told = page.get_by_role("status").inner_text()
    assert told == f"The answer for {song.name}: {answer['label']}, {share}."
    shown = page.locator("#bars dd").all_inner_texts()
    assert shown == [f"{100 * value:.1f} %" for value in answer["probabilities"].values()]
    widths = [bar.evaluate("b => b.getBoundingClientRect().width")
              for bar in page.locator("#bars i").all()]  # fmt: skip
    assert max(widths) / min(widths) == pytest.approx(
        max(answer["probabilities"].values()) / min(answer["probabilities"].values()), rel=0.1
    )
    assert colors(page, "canvas") > 50
    assert colors(page, "weights") >= 2
    assert "occlusion" in page.inner_text("#why")
    assert page.evaluate("document.getElementById('player').src").startswith("blob:")
    shoot(page, "song")


def test_the_highlighted_seconds(page, app, song):
    """Those with at least half of the largest weight; each can be heard, the frame taken away."""
    weights = [0.001] * 30
    weights[4], weights[5], weights[20] = 0.2, 0.15, 0.12

    answer = app.predict(song.read_bytes(), query="?explain=true").json
    for part, weight in zip(answer["explanation"], weights, strict=True):
        part["weight"] = weight
    page.route("**/v1/predict*", lambda route: route.fulfill(json=answer))
    page.set_input_files("#file", song)
    page.wait_for_selector("#seconds button")
    told = page.locator("#seconds button").all_inner_texts()
    assert [re.search(r"(\S+) \((.*)\)", text).groups() for text in told] == [
        ("0:04–0:06", "20.0 %"),
        ("0:20–0:21", "12.0 %"),
    ]
    dimmed = brightness(page, second=10)
    shoot(page, "highlight")
    page.uncheck("#highlight")
    assert brightness(page, second=10) > 1.5 * dimmed  # it said nothing for the answer


def brightness(page, *, second: int) -> float:
    """The mean level of the picture around the middle of a second."""
    return page.evaluate(
        """(second) => {
          const canvas = document.getElementById("canvas");
          const x = Math.floor(canvas.width * (second + 0.4) / 29.97);
          const { data } = canvas.getContext("2d").getImageData(x, 20, 8, canvas.height - 40);
          return data.reduce((sum, value, i) => sum + (i % 4 < 3 ? value : 0), 0) / data.length;
        }""",
        second,
    )


def test_the_answer_along_a_long_song(page, app, tmp_path, song):
    """Each column can be read without its colors, by eye and by ear."""
    samples, rate = soundfile.read(song, dtype="float32", always_2d=True)
    long = tmp_path / "long.mp3"
    soundfile.write(long, np.concatenate([samples.mean(axis=1)] * 5), rate)
    page.set_input_files("#file", long)
    page.wait_for_selector("#along", state="visible")
    assert page.locator("#legend li").all_inner_texts() == ["low", "medium", "high"]
    looks = [
        item.evaluate("i => getComputedStyle(i).backgroundImage")
        for item in page.locator("#legend i").all()
    ]
    assert len(set(looks)) == 3
    windows = app.predict(long.read_bytes()).json["windows"]
    heard = page.get_attribute("#windows", "aria-label").split(", ")
    assert [text.split()[1] for text in heard] == [window["label"] for window in windows]
    assert ", 30 seconds long" in page.inner_text("#along .note")
    shoot(page, "along")


def test_edges_can_be_seen(page):
    """Of what can be used: a contrast of 3 at least (WCAG 1.4.11), in the light and in the dark."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        edge, ground = page.evaluate(
            """() => [getComputedStyle(document.getElementById("drop")).borderTopColor,
                      getComputedStyle(document.body).backgroundColor]"""
        )
        darker, lighter = sorted(map(luminance, (edge, ground)))
        assert (lighter + 0.05) / (darker + 0.05) >= 3
        shoot(page, scheme)


def luminance(color: str) -> float:
    """The relative luminance, as WCAG has it, of "rgb(r, g, b)"."""
    levels = np.array([int(level) / 255 for level in re.findall(r"\d+", color)[:3]])
    linear = np.where(levels <= 0.03928, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_a_model_that_is_not_ready(page, app, song):
    """Its error is not taken for what the model says of itself."""
    answer = {"error": {"code": "no_model", "message": "The model server does not answer."}}
    page.route("**/v1/model", lambda route: route.fulfill(json=answer, status=503))
    page.goto(app.url)
    page.wait_for_load_state("networkidle")
    assert page.inner_text("#limits") == "mp3, wav, flac or ogg"
    page.set_input_files("#file", song)
    page.wait_for_selector("#result", state="visible")


def test_a_text_file_named_mp3(page, tmp_path, song):
    text = tmp_path / "notes.mp3"
    text.write_text("Not a song at all.")
    page.set_input_files("#file", text)
    page.wait_for_selector("#error", state="visible")
    assert "can't be decoded as mp3, wav, flac or ogg" in page.inner_text("#error")
    assert page.locator("#result").is_hidden()
    shoot(page, "text-named-mp3")
    page.set_input_files("#file", song)  # and the next one works
    page.wait_for_selector("#result", state="visible")
    assert page.locator("#error").is_hidden()


def test_a_file_that_is_too_large_is_not_sent(page, tmp_path):
    sent = []
    page.on("request", lambda request: sent.append(request.url))
    page.locator("#limits", has_text="3 MB and 15 minutes").wait_for()
    large = tmp_path / "large.wav"
    large.write_bytes(bytes(3_100_000))
    page.set_input_files("#file", large)
    page.wait_for_selector("#error", state="visible")
    assert "too large; up to 3 MB" in page.inner_text("#error")
    assert not any("predict" in url for url in sent)


def test_on_a_phone_and_by_keyboard(chromium, app, song):
    context = chromium.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.goto(app.url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    choosers = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    for _ in range(5):  # headless Chromium now and then drops the first key
        page.keyboard.press("Space")
        page.wait_for_timeout(500)
        if choosers:
            break
    choosers[0].set_files(song)
    page.wait_for_selector("#result", state="visible")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    reached = set()
    for _ in range(25):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"player", "highlight"} <= reached
    shoot(page, "phone")
    context.close()


def test_the_documentation_of_the_api(page, app):
    page.goto(app.url + "docs")
    page.get_by_text("/v1/predict").first.wait_for()
