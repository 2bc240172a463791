"""A page of the console as its tests look at it: in both themes, on a desk and on a phone."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.base import AXE_SCRIPT
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, Page

WIDE = {"width": 1440, "height": 900}
NARROW = {"width": 390, "height": 844}
_SETTLE_MS = 15_000
_NEXT_FRAME = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


class Watched:
    """A page, and everything that its console said of errors."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.errors: list[str] = []
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def open(self, view: str) -> Page:
        """Go to a view, such as `sql?q=SELECT+1`."""
        self.page.goto(f"{self.address}/#/{view}")
        return self.page

    def check(self, streams: bool = False) -> None:
        """Nothing that a user would stumble over, in either theme and at either width.

        `streams`: the view follows events, so the network is never idle.
        """
        if not streams:
            self.page.wait_for_load_state("networkidle", timeout=_SETTLE_MS)
        for size, theme, rules in (
            (WIDE, "light", None),
            (WIDE, "dark", ["color-contrast"]),
            (NARROW, "dark", None),
            (NARROW, "light", ["color-contrast"]),
        ):
            self.page.set_viewport_size(size)  # type: ignore[arg-type]
            self.page.emulate_media(color_scheme=theme, reduced_motion="reduce")  # type: ignore[arg-type]
            # Colours of the other theme stand until the next frame is drawn.
            self.page.evaluate(_NEXT_FRAME)
            where = f"{theme} at {size['width']} px"
            wide = self.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= size["width"], f"{where}: the page is {wide} px wide"
            assert not (found := _serious(self.page, rules)), f"{where}: {found}"
        self.page.set_viewport_size(WIDE)  # type: ignore[arg-type]
        assert self.page.title() != "pwned"
        assert self.errors == []


def _serious(page: Page, rules: list[str] | None) -> list[str]:
    """What axe finds that is serious or worse."""
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if rules is not None:
        options["runOnly"] = {"type": "rule", "values": rules}
    # Once a page: half a megabyte of script is read each time.
    axe = Axe("" if page.evaluate("typeof axe === 'object'") else AXE_SCRIPT)
    found = axe.run(page, options=options).response["violations"]
    return [
        f"{each['id']}: {[node['html'][:200] for node in each['nodes'][:3]]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
