"""`make screenshots`: the console's views with real photos behind them, as files for the docs.

Starts a stack of its own, publishes the demonstration's photos from several feeds for a while, so
that there is something to draw, and writes docs/images/console-*.png. However slow the machine is,
nothing is photographed before it is there: photos are published no faster than they are stored,
and a view is taken once every picture in sight is decoded, before and after.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx
from palette import with_palette
from playwright.sync_api import Browser, Page, sync_playwright

sys.path.append(str(Path(__file__).parents[1] / "servers"))

from running_up import RunningUp, until

from imagewire.demo.photos import make_demo_set
from imagewire.publishing import Publication

IMAGES = Path(__file__).parents[2] / "docs" / "images"
POLICY = Path(__file__).with_name("screenshots_policy.toml")
_FEEDS = ("gate-3", "uploads", "market-square", "front-page")
_AHEAD = 12
"""Published and not stored yet: more would only make the wall wait."""
_DESK = {"width": 1440, "height": 900}
_PHONE = {"width": 390, "height": 844}
_QUESTION = """\
SELECT feed, verdict, count() AS images, round(avg(latency_ms)) AS latency_ms
FROM images
GROUP BY feed, verdict
ORDER BY images DESC"""
_WHOLE = """() => {
  const seen = (element) => {
    const { top, left, bottom, right, width } = element.getBoundingClientRect();
    return width > 0 && bottom > 0 && right > 0 && top < innerHeight && left < innerWidth;
  };
  return document.querySelector("h1") !== null
    && ![...document.querySelectorAll(".skeleton, .picture-missing")].some(seen)
    && [...document.images].filter(seen).every((image) => image.complete && image.naturalWidth > 0);
}"""
_PATIENCE_MS = 300_000
_TRIES = 20


@dataclass(frozen=True)
class Shot:
    """One file: console-`name`.png."""

    name: str
    view: str
    dark: bool = False
    phone: bool = False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=160, help="published before the first file")
    parser.add_argument("--broker", default="tansu")
    parser.add_argument("--to", type=Path, default=IMAGES, help="folder of the files")
    parser.add_argument(
        "--every", action="store_true", help="every view in both themes and at both widths"
    )
    parser.add_argument(
        "--console", default="", help="address of a console that runs already, with such photos"
    )
    options = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        print("no Chromium is installed; with Debian: apt-get install chromium", file=sys.stderr)
        return 1
    options.to.mkdir(parents=True, exist_ok=True)
    if options.console:
        _photograph(options.console.rstrip("/"), options.to, program, options.every)
        return 0
    with tempfile.TemporaryDirectory(prefix="imagewire-screenshots-") as folder:
        directory = Path(folder)
        photos = [image.path for image in make_demo_set(directory) if image.kind != "broken"]
        stack = RunningUp(
            directory / "data",
            ["--files", str(directory), "--broker", options.broker],
            {"IMAGEWIRE_POLICY__FILE": str(POLICY)},
        )
        try:
            stack.start(1800)
            address = _address_of(stack)
            with Flow(stack, address, photos) as flow:
                until(
                    f"{options.images} images", lambda: stored(address) >= options.images, 3600, 2
                )
                flow.slow.set()
                _photograph(address, options.to, program, options.every)
        finally:
            if stack.process is not None and stack.process.poll() is None:
                stack.stop()
            stack.end()
    return 0


class Flow:
    """Publishes photos as new images, about two each second; one every four seconds once `slow` is
    set, so that pictures of what arrives are there when it is photographed."""

    def __init__(self, stack: RunningUp, address: str, photos: Sequence[Path]) -> None:
        self._stack = stack
        self._address = address
        self._photos = photos
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.slow = threading.Event()

    def __enter__(self) -> Flow:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join(120)

    def _run(self) -> None:
        choice = random.Random(5)
        number = 0
        while not self._enough.wait(4 if self.slow.is_set() else 1):
            if number - stored(self._address) > _AHEAD:
                continue
            batch = []
            for _ in range(1 if self.slow.is_set() else 2):
                number += 1
                photos = self._photos
                path = photos[number - 1] if number <= len(photos) else choice.choice(photos)
                image_id = f"{path.stem}-{number:04}"
                batch.append(Publication(image_id, choice.choice(_FEEDS), uri=path.as_uri()))
            self._stack.publish(batch)


def stored(address: str) -> int:
    """How many images are stored; 0 while the API does not answer."""
    try:
        answer = httpx.get(f"{address}/v1/stats", timeout=60, trust_env=False)
        return int(answer.json()["totals"]["images"]) if answer.status_code == 200 else 0
    except httpx.TransportError:
        return 0


def _shots(address: str, every: bool) -> list[Shot]:
    image = f"image/{quote(_image_of(address, 'grace-hopper', verdict='review'), safe='')}"
    search = f"search?image_id={quote(_image_of(address, 'bus'), safe='')}"
    sql = f"sql?q={quote(_QUESTION)}"
    if every:
        views = {
            "live": "live",
            "image": image,
            "search": search,
            "search-picture": "search",
            "search-words": "search?mode=text&text=free",
            "search-duplicates": "search?mode=duplicates",
            "review": "review",
            "review-batch": "review?mode=batch",
            "review-agreement": "review?mode=agreement",
            "sql": sql,
            "policy": "policy",
        }
        return [
            Shot(f"{name}-{'dark' if dark else 'light'}-{width}", view, dark, width == 390)
            for name, view in views.items()
            for dark in (False, True)
            for width in (1440, 390)
        ]
    return [
        Shot("live", "live"),
        Shot("live-dark", "live", dark=True),
        Shot("live-phone", "live", phone=True),
        Shot("image", image),
        Shot("image-dark", image, dark=True),
        Shot("image-phone", image, phone=True),
        Shot("search", search),
        Shot("search-phone", search, dark=True, phone=True),
        Shot("review", "review"),
        Shot("review-batch", "review?mode=batch", dark=True),
        Shot("review-phone", "review", dark=True, phone=True),
        Shot("sql", sql),
        Shot("sql-dark", sql, dark=True),
        Shot("policy", "policy"),
        Shot("policy-phone", "policy", phone=True),
    ]


def _photograph(address: str, folder: Path, program: str, every: bool) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        shots = _shots(address, every)
        # Lag is drawn from what a page has seen itself, so these are opened first and taken last.
        live = [(shot, _open(browser, address, shot)) for shot in shots if shot.view == "live"]
        for shot in shots:
            if shot.view != "live":
                _take(_open(browser, address, shot), shot, folder)
        for shot, page in live:
            _take(page, shot, folder)
        browser.close()


def _open(browser: Browser, address: str, shot: Shot) -> Page:
    context = browser.new_context(
        viewport=_PHONE if shot.phone else _DESK,  # type: ignore[arg-type]
        color_scheme="dark" if shot.dark else "light",
        device_scale_factor=2 if shot.phone else 1,
        has_touch=shot.phone,
        reduced_motion="reduce",
        locale="en-GB",
    )
    context.set_default_timeout(_PATIENCE_MS)
    page = context.new_page()
    page.goto(f"{address}/#/{shot.view}")
    return page


def _take(page: Page, shot: Shot, folder: Path) -> None:
    page.bring_to_front()
    _act(page, shot)
    for _ in range(_TRIES):
        page.wait_for_function(_WHOLE, timeout=_PATIENCE_MS)
        # A wall goes on while it is photographed: what came meanwhile may not be there yet.
        photo = page.screenshot()
        if page.evaluate(_WHOLE):
            break
    else:
        raise RuntimeError(f"console-{shot.name}: pictures do not come as quickly as images do")
    page.evaluate("for (const image of document.images) image.style.visibility = 'hidden'")
    plain = page.screenshot()
    file = folder / f"console-{shot.name}.png"
    with_palette(photo, plain).save(file, optimize=True)
    print(file, flush=True)
    page.context.close()


def _act(page: Page, shot: Shot) -> None:
    """What a person would do before there is something to be seen."""
    if shot.view.startswith("sql"):
        page.get_by_role("button", name="Run").click()
        page.locator(".answer-table").wait_for()
        if shot.dark:
            page.locator("label", has_text="Chart").click()
        page.mouse.move(0, 0)
    elif shot.view == "live":
        page.get_by_text("Following").wait_for()
        page.locator(".tile img").first.wait_for()
        page.locator(".trends .line").first.wait_for(state="attached")
    elif shot.view.startswith("search?mode=duplicates"):
        page.get_by_role("button", name="Find").click()
        page.locator(".tile").first.wait_for()
    elif shot.view.startswith("search?"):
        page.locator(".found-one").first.wait_for()
    elif shot.view.startswith("review?mode=batch"):
        page.locator(".pick").first.wait_for()
        for place in (0, 2, 3):
            page.locator(".pick input").nth(place).check()
    elif shot.view == "review":
        page.get_by_role("link", name="Everything about it").wait_for()
        page.locator(".review-stage .overlay").wait_for(state="attached")
    elif shot.view == "policy":
        page.locator(".policy-rule").first.wait_for()
    elif shot.view.startswith("image/"):
        page.locator(".strip .tile").first.wait_for()


def _image_of(address: str, name: str, **query: str) -> str:
    """The id of the latest stored image of a photo."""

    def look() -> str:
        try:
            answer = httpx.get(
                f"{address}/v1/images",
                params={"limit": 200, **query},
                timeout=60,
                trust_env=False,
            )
        except httpx.TransportError:
            return ""  # the API is started, or started again, beside the stack
        images = answer.json()["images"] if answer.status_code == 200 else []
        return next((str(one["image_id"]) for one in images if one["image_id"][:-5] == name), "")

    return until(f"an image of {name}", look, 900, 2)


def _address_of(stack: RunningUp) -> str:
    lines = stack.output.read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("console ")).rstrip("/")


if __name__ == "__main__":
    sys.exit(main())
