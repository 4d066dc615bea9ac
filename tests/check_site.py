"""Look through the pages of the web edition: python tests/check_site.py FOLDER

Each page has a language, a title of its own and a description; its links lead somewhere, to the
very heading; nothing is fetched from elsewhere; each picture has a text alternative; no directive
and no formula in TeX is left; what folds is whole.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

LINKS = "[href], [src]"


def wrong_links(path: Path, page: BeautifulSoup, ids: dict[Path, set[str]]) -> Iterator[str]:
    """The links of the page at `path` that lead nowhere, given the ids of every page."""
    for tag in page.select(LINKS):
        link = tag.get("href", tag.get("src"))
        parts = urlsplit(link)
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if parts.scheme == "data":
            continue
        if parts.scheme or parts.netloc:
            if tag.name in ("script", "link", "img", "iframe"):
                yield f"fetched from elsewhere: {link}"
            elif parts.scheme not in ("http", "https") or "." not in parts.netloc:
                yield f"a link without form: {link}"
        elif not target.is_file():
            yield f"leads nowhere: {link}"
        elif parts.fragment and unquote(parts.fragment) not in ids[target]:
            yield f"leads to no heading: {link}"


def faults(path: Path, page: BeautifulSoup, ids: dict[Path, set[str]]) -> Iterator[str]:
    """What is wrong with the page at `path`; it loses its code on the way."""
    if not (page.html and page.html.get("lang")):
        yield "no language"
    if not (page.title and page.title.string):
        yield "no title"
    if not page.select("meta[name=description][content]:not([content=''])"):
        yield "no description"
    if path.name != "page.html":
        yield from (f"no text alternative: {one}" for one in page("img") if not one.get("alt"))
    yield from wrong_links(path, page, ids)
    text = page.get_text()
    markup = re.sub(r"(?s)<script\b.*?</script>", "", path.read_text(encoding="utf-8"))
    if markup.count("<details") != markup.count("</details>") or "</details>" in text:
        yield "something that folds is not closed, or closed twice"
    yield from (f"left over: {one}" for one in re.findall(r"(?m)^#\| .*", text))
    for code in page("pre"):
        code.decompose()
    yield from (f"left over: {one}" for one in re.findall(r"\$\$.*|\\\(.*", page.get_text()))


def main(folder: Path) -> int:
    folder = folder.resolve()
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.html"))}
    pages = {path: BeautifulSoup(text, "html.parser") for path, text in texts.items()}
    ids = {path: {tag["id"] for tag in page.select("[id]")} for path, page in pages.items()}
    titles = Counter(page.title.string for page in pages.values() if page.title)
    formulas = sum(len(page("math")) for page in pages.values())
    links = sum(len(page.select(LINKS)) for page in pages.values())
    found = [f"the title of several pages: {title}" for title, n in titles.items() if n > 1]
    for path, page in pages.items():
        found += [f"{path.relative_to(folder)}: {fault}" for fault in faults(path, page, ids)]
    print(*found, f"{len(pages)} pages, {links} links, {formulas} formulas", sep="\n")
    return bool(found or not formulas)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
