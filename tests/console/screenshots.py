"""`make screenshots`: the console's views with real photos behind them, as files for the docs.

Starts a stack of its own, publishes the demonstration's photos from several feeds for a while, so
that there is something to draw, and writes docs/images/console-*.png.
"""

from __future__ import annotations

import argparse
import io
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

sys.path.append(str(Path(__file__).parents[1] / "servers"))

from running_up import RunningUp, until

from imagewire.demo.photos import make_demo_set
from imagewire.publishing import Publication

IMAGES = Path(__file__).parents[2] / "docs" / "images"
POLICY = Path(__file__).with_name("screenshots_policy.toml")
_FEEDS = ("gate-3", "uploads", "market-square", "front-page")
_FLAT = 64
_DESK = {"width": 1440, "height": 900}
_PHONE = {"width": 390, "height": 844}
_QUESTION = """\
SELECT feed, verdict, count() AS images, round(avg(latency_ms)) AS latency
FROM images
GROUP BY feed, verdict
ORDER BY images DESC"""


@dataclass(frozen=True)
class Shot:
    """One file: console-`name`.png."""

    name: str
    view: str
    theme: str = "light"
    phone: bool = False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=90, help="how long photos keep coming")
    parser.add_argument("--broker", default="tansu")
    parser.add_argument("--to", type=Path, default=IMAGES, help="folder of the files")
    options = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        print("no Chromium is installed; with Debian: apt-get install chromium", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="imagewire-screenshots-") as folder:
        directory = Path(folder)
        photos = [image.path for image in make_demo_set(directory) if image.kind != "broken"]
        stack = RunningUp(
            directory / "data",
            ["--files", str(directory), "--broker", options.broker],
            {"IMAGEWIRE_POLICY__FILE": str(POLICY)},
        )
        try:
            stack.start(900)
            _photograph(stack, photos, options.seconds, options.to, program)
        finally:
            if stack.process is not None and stack.process.poll() is None:
                stack.stop()
            stack.end()
    return 0


def _photograph(
    stack: RunningUp, photos: Sequence[Path], seconds: float, folder: Path, program: str
) -> None:
    address = _address_of(stack)
    enough, warm = threading.Event(), threading.Event()
    flow = threading.Thread(target=_publish_until, args=(stack, photos, warm, enough), daemon=True)
    flow.start()
    try:
        time.sleep(seconds)
        until("a photo of a bus", lambda: _image_of(address, "bus.jpg"), 600, every=2)
        warm.set()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            for shot in _shots(address):
                _take(browser, address, shot, folder)
            browser.close()
    finally:
        enough.set()
        flow.join(60)


def _shots(address: str) -> list[Shot]:
    image = f"image/{quote(_image_of(address, 'zidane.jpg'), safe='')}"
    return [
        Shot("live", "live"),
        Shot("live-dark", "live", "dark"),
        Shot("live-phone", "live", phone=True),
        Shot("image", image),
        Shot("image-dark", image, "dark"),
        Shot("search", f"search?image_id={quote(_image_of(address, 'bus.jpg'), safe='')}"),
        Shot("review", "review"),
        Shot("review-phone", "review", "dark", phone=True),
        Shot("sql", f"sql?q={quote(_QUESTION)}"),
        Shot("policy", "policy"),
    ]


def _take(browser: Browser, address: str, shot: Shot, folder: Path) -> None:
    context = browser.new_context(
        viewport=_PHONE if shot.phone else _DESK,  # type: ignore[arg-type]
        color_scheme=shot.theme,  # type: ignore[arg-type]
        device_scale_factor=2 if shot.phone else 1,
        has_touch=shot.phone,
        reduced_motion="reduce",
        locale="en-GB",
    )
    page = context.new_page()
    page.goto(f"{address}/#/{shot.view}")
    if shot.view.startswith("sql"):
        page.get_by_role("button", name="Run").click()
    _settle(page)
    shown = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    _with_palette(shown).save(folder / f"console-{shot.name}.png", optimize=True)
    context.close()


def _with_palette(shown: Image.Image) -> Image.Image:
    """In 256 colours, which makes a file a third as large. The page's own colours are kept exactly:
    they are the ones that most pixels share; photos are given the rest."""
    counted = shown.getcolors(shown.width * shown.height) or []
    flat = [colour for _, colour in sorted(counted, reverse=True)[:_FLAT]]
    photos = (shown.quantize(256 - len(flat)).getpalette() or [])[: 3 * (256 - len(flat))]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for colour in flat for part in colour] + photos)
    return shown.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def _settle(page: Page) -> None:
    """Until pictures in sight are there; verdicts keep arriving, so the network is never idle."""
    page.wait_for_timeout(6000)
    page.wait_for_function(
        """() => [...document.querySelectorAll(".picture .skeleton")].every((place) => {
          const { top, left } = place.getBoundingClientRect();
          return top > innerHeight || left > innerWidth;
        }) && !document.querySelector("[role=status] .skeleton")""",
        timeout=120_000,
    )


def _publish_until(
    stack: RunningUp, photos: Sequence[Path], warm: threading.Event, enough: threading.Event
) -> None:
    """Two photos a second, each time as new images; fewer once it is warm, so that pictures of what
    arrives are there when it is photographed."""
    choice = random.Random(5)
    number = 0
    while not enough.wait(3 if warm.is_set() else 1):
        batch = []
        for _ in range(1 if warm.is_set() else 2):
            number += 1
            path = photos[number] if number < len(photos) else choice.choice(photos)
            batch.append(
                Publication(f"{path.stem}-{number:04}", choice.choice(_FEEDS), uri=path.as_uri())
            )
        stack.publish(batch)


def _image_of(address: str, file: str) -> str:
    """The id of the latest image of a photo; empty as long as there is none."""
    for label in ("FACE_MALE", "FACE_FEMALE", None):
        query = {"limit": 200} | ({"label": label} if label else {})
        try:
            answer = httpx.get(f"{address}/v1/images", params=query, timeout=60, trust_env=False)
        except httpx.TransportError:
            return ""  # the API is started, or started again, beside the stack
        for image in answer.json()["images"]:
            if (image["uri"] or "").endswith(f"/{file}"):
                return str(image["image_id"])
    return ""


def _address_of(stack: RunningUp) -> str:
    def told() -> str:
        lines = stack.output.read_text().splitlines()
        return next((line.split()[1] for line in lines if line.startswith("console ")), "")

    return until("the console's address", told, 300).rstrip("/")


if __name__ == "__main__":
    sys.exit(main())
