"""Draw each picture of this folder: FILE.mmd becomes FILE.svg, so that pages need no script to show them.

npm install --prefix build/mermaid mermaid@11 && python docs/pictures/draw.py build/mermaid/node_modules/mermaid
"""

import re
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

DRAW = """async ([name, source]) => {
  const flowchart = {htmlLabels: false, wrappingWidth: 640, rankSpacing: 24};
  mermaid.initialize({startOnLoad: false, theme: "neutral", htmlLabels: false, flowchart});
  return (await mermaid.render(name, source)).svg;
}"""


def main(package: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page()
        page.set_content("<body></body>")
        page.add_script_tag(path=f"{package}/dist/mermaid.min.js")
        for source in sorted(Path(__file__).parent.glob("*.mmd")):
            svg = page.evaluate(DRAW, [source.stem, source.read_text(encoding="utf-8")])
            # A white ground: the lines are dark, and the page may be too.
            svg = re.sub(r'style="max-width: ([\d.]+)px;[^"]*"', r'style="max-width: \1px; background: white"', svg)
            source.with_suffix(".svg").write_text(svg + "\n", encoding="utf-8")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
