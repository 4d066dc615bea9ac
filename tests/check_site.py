"""Look through the pages of the web edition: python tests/check_site.py FOLDER

Each page has a language, a title of its own and a description; its links lead somewhere, to the
very heading; nothing is fetched from elsewhere; each picture has a text alternative; no directive
and no formula in TeX is left; what folds is whole.
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src")}


class Page(HTMLParser):
    """What the checks need to know of one page."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.links, self.tags, self.text, self.prose = set(), [], [], [], []
        self.language = self.title = self.description = ""
        self.within = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.tags.append((tag, given))
        self.within.append(tag)
        self.ids |= {given["id"]} if "id" in given else set()
        self.links += [(tag, key, given[key]) for key in ("href", "src") if key in given]
        if tag == "html":
            self.language = given.get("lang", "")
        if (tag, given.get("name")) == ("meta", "description"):
            self.description = given["content"]

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((f"/{tag}", {}))
        if tag in self.within:
            while self.within.pop() != tag:  # what needs no end has none
                pass

    def handle_data(self, data: str) -> None:
        if "title" in self.within and "svg" not in self.within:
            self.title += data
        elif not {"script", "style"} & set(self.within):
            self.text.append(data)
            self.prose += [] if "pre" in self.within else [data]

    def count(self, tag: str) -> int:
        return sum(tag == one for one, _ in self.tags)


def faults(name: str, pages: dict[str, Page], folder: Path) -> Iterator[str]:
    """What is wrong with one page."""
    page = pages[name]
    for what in ("language", "title", "description"):
        if not getattr(page, what):
            yield f"no {what}"
    if name != "page.html":
        yield from (
            f"no text alternative: {a}" for t, a in page.tags if t == "img" and not a["alt"]
        )
    text = "".join(page.text)
    left = re.findall(r"^#\| .*", text, re.M)
    left += re.findall(r"\$\$.*|\\\(.*", "".join(page.prose))
    yield from (f"left over: {found}" for found in left)
    if page.count("details") != page.count("/details") or text.count("</details>"):
        yield "something that folds is not closed, or closed twice"
    for tag, key, link in page.links:
        parts = urlsplit(link)
        if parts.scheme == "data":
            continue
        if parts.scheme or parts.netloc:
            if (tag, key) in FETCHED:
                yield f"fetched from elsewhere: {link}"
            elif parts.scheme not in ("http", "https") or "." not in parts.netloc:
                yield f"a link without form: {link}"
            continue
        target = (folder / name).parent / unquote(parts.path) if parts.path else folder / name
        other = target.resolve().relative_to(folder).as_posix()
        if not target.is_file():
            yield f"leads nowhere: {link}"
        elif parts.fragment and unquote(parts.fragment) not in pages[other].ids:
            yield f"leads to no heading: {link}"


def main(folder: Path) -> int:
    folder = folder.resolve()
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.html"))]
    pages = {name: Page(folder / name) for name in names}
    found = [f"{name}: {fault}" for name in names for fault in faults(name, pages, folder)]
    titles = [page.title for page in pages.values()]
    found += [f"the title of several pages: {t}" for t in set(titles) if titles.count(t) > 1]
    formulas = sum(page.count("math") for page in pages.values())
    links = sum(len(page.links) for page in pages.values())
    print(*found, f"{len(pages)} pages, {links} links, {formulas} formulas", sep="\n")
    return bool(found or not formulas)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
