"""Takes the picture of the web page that the documentation shows.

    python tests/python/take_page_picture.py docs/web_page.jpg [--pack NAME]

Needs what ``test_web_page.py`` needs; the page shows the sample picture of the package.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from browsing import chromium, expect, send_picture
from test_web_page import view_with_face
from threedfa.cli import SAMPLE
from web_server import serving


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the picture of the web page.")
    parser.add_argument("output", type=Path, help="JPEG file")
    parser.add_argument("--pack", type=Path, default=Path("default"))
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(arguments.pack, Path(folder)) as server,
        chromium() as browser,
    ):
        page = browser.new_page(viewport={"width": 1200, "height": 1200})
        page.goto(server.url)
        send_picture(page, SAMPLE)
        page.get_by_role("radio", name="Mesh").check()
        expect(page.locator("#surface")).to_be_visible()
        page.get_by_text("Expressions").click()
        view_with_face(page)
        page.screenshot(path=arguments.output, type="jpeg", quality=80)


if __name__ == "__main__":
    main()
