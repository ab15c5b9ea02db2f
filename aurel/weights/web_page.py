"""Web pages in place of files: the confirmation page of Google Drive, and others."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit


class _Page(HTMLParser):
    """The title, the forms with their hidden values, and the links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.title = ""
        self.forms: list[tuple[str, dict[str, str]]] = []
        self.links: list[str] = []
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self._in_title = tag == "title"
        if tag == "form":
            self.forms.append((values.get("action", ""), {}))
        elif tag == "input" and values.get("type") == "hidden" and self.forms:
            self.forms[-1][1][values.get("name", "")] = values.get("value", "")
        elif tag == "a":
            self.links.append(values.get("href", ""))

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data


def confirmed_url(text: str, url: str) -> str | None:
    """Return the address of the file behind a page that asks to confirm a large download.

    Args:
        text: the page.
        url: its address.

    Returns:
        The action of the form that has a value `confirm`, with all hidden values, or the link that
        has one; None where the page is another.
    """
    page = _parse(text)
    for action, hidden in page.forms:
        if "confirm" in hidden:
            parts = urlsplit(urljoin(url, action))
            query = urlencode({**dict(parse_qsl(parts.query)), **hidden})
            return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))
    for link in page.links:
        if "confirm" in dict(parse_qsl(urlsplit(link).query)):
            return urljoin(url, link)
    return None


def title(text: str) -> str:
    """Return the title of a page in one line, or ""."""
    return " ".join(_parse(text).title.split())


def _parse(text: str) -> _Page:
    page = _Page()
    page.feed(text)
    return page
