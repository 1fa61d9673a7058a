"""A real Chromium without other network access, whose console must stay empty, and axe for accessibility checks."""

import shutil
from contextlib import asynccontextmanager

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import async_playwright

from hang import HANG

FOUND = shutil.which("chromium") or shutil.which("google-chrome")
MISSING = "There is no Chromium here. Install it (apt-get install chromium) to run the browser tests."

#: Root needs --no-sandbox; the rest keeps the browser from talking to anyone but the inbox.
FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--no-first-run",
]
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]}


@asynccontextmanager
async def chromium():
    """Start the browser."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=FOUND, args=FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def window(browser, url, **options):
    """Open a window at *url*; fails if a page logs to its console or throws."""
    complaints = []
    context = await browser.new_context(base_url=url, **options)
    page = await context.new_page()
    page.set_default_timeout(HANG * 1000)
    page.on("console", lambda said: said.type in {"error", "warning"} and complaints.append(said.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.complaints = complaints
    try:
        yield page
    finally:
        await context.close()
    assert complaints == []


async def barriers(page):
    """Return the accessibility violations that axe finds."""
    found = await Axe().run(page, options=RULES)
    return [
        (violation["id"], [node["html"] for node in violation["nodes"]])
        for violation in found.response["violations"]
    ]
