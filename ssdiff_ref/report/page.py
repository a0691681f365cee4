"""The page of a report: one HTML file with all that it shows."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template

from ssdiff_ref.report.images import CLASSICAL, View, encoded, encoded_holes

_COLOURS = ("red", "green", "blue")
_PRESETS = {
    "True colour": (("red",), ("green",), ("blue",)),
    "False colour (near infrared)": (("nir", "nir1"), ("red",), ("green",)),
}
"""Names of the bands shown as red, green and blue."""
_FIRST_WIDTH = 768
"""Pixels of the page that an image takes at first, about."""


@dataclass(frozen=True)
class Drawing:
    """A figure of the page."""

    kind: str
    """MIME type of an image, without ``image/``."""
    content: bytes
    alternative: str
    """What it shows, for those who do not see it."""
    caption: str

    def html(self) -> str:
        """As an element."""
        content = b64encode(self.content).decode()
        return (
            f'<figure><img src="data:image/{self.kind};base64,{content}" '
            f'alt="{escape(self.alternative)}"><figcaption>{escape(self.caption)}</figcaption>'
            "</figure>"
        )


@dataclass(frozen=True)
class Content:
    """All that a page shows but what is the same on every page; plain text."""

    title: str
    summary: str
    bands: Sequence[str]
    """Names of the bands in the order of the views."""
    views: Sequence[View]
    place: Sequence[str | Drawing]
    """Paragraphs and figures on the position of MS on PAN."""
    quality: Sequence[str | Drawing]
    uncertainty: Sequence[str | Drawing]
    settings: Mapping[str, Sequence[str] | Mapping[str, str]]
    """By heading: sentences, or values by name."""


def html_of(content: Content) -> str:
    """The page as text."""
    presets = _presets(content.bands)
    first = next(iter(presets.values()), tuple(min(n, len(content.bands) - 1) for n in range(3)))
    options = {
        colour: _options(content.bands, chosen)
        for colour, chosen in zip(_COLOURS, first, strict=True)
    }
    buttons = (
        f'<button type="button" data-bands="{",".join(map(str, numbers))}">{name}</button>'
        for name, numbers in presets.items()
    )
    styles, viewers = [], []
    for number, (view, images) in enumerate(
        zip(content.views, encoded(content.views), strict=True)
    ):
        holes = encoded_holes(view)
        for index, bands in enumerate(images.values()):
            styles += [
                f'.v{number}p{index}-{band} {{ background-image: url("data:image/jpeg;base64,'
                f'{image}"); }}'
                for band, image in enumerate(bands)
            ]
        if holes is not None:
            styles.append(
                f'.v{number}h {{ background-image: url("data:image/png;base64,{holes}"); }}'
            )
        viewers.append(_viewer(number, view, first, holes is not None))
    template = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        options,
        title=escape(content.title),
        summary=escape(content.summary),
        classical=CLASSICAL,
        images="\n".join(styles),
        presets="\n".join(buttons),
        viewers="\n".join(viewers),
        place=_block(content.place),
        quality=_block(content.quality),
        uncertainty=_block(content.uncertainty),
        settings="\n".join(
            f"<h3>{escape(heading)}</h3>\n{_list(rows)}"
            for heading, rows in content.settings.items()
        ),
    )


def _presets(bands: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Numbers of the bands of each preset that there are bands for."""
    found = {}
    for preset, wanted in _PRESETS.items():
        numbers = [next((bands.index(n) for n in names if n in bands), None) for names in wanted]
        if None not in numbers:
            found[preset] = tuple(number for number in numbers if number is not None)
    return found


def _viewer(number: int, view: View, first: Sequence[int], has_holes: bool) -> str:
    """The images of a view and their controls; the JavaScript of the page moves them."""
    height, width = view.size
    zoom = min(max(round(2 * _FIRST_WIDTH / width) / 2, 0.5), 8.0)
    names = list(view.products)
    left, right = (_options(names, names.index(name)) for name in ("MS, interpolated", "Result"))
    stacks = []
    for index, (name, bands) in enumerate(view.products.items()):
        place = f"v{number}p{index}"
        layers = [
            f'<i class="{colour} {place}-{band}" data-images="{place}"></i>'
            for colour, band in zip(_COLOURS, first, strict=True)
        ]
        if len(bands) == 1 and name == "PAN":
            layers = [f'<i class="{place}-0"></i>']
        if has_holes:
            layers.append(f'<i class="hole v{number}h"></i>')
        label = escape(f"{name}: {view.title}")
        stacks.append(
            f'<figure><div class="stack" role="img" aria-label="{label}">{"".join(layers)}</div>'
            f"<figcaption>{escape(name)}</figcaption></figure>"
        )
    title = escape(view.title)
    return f"""<section class="viewer" style="--w: {width}; --h: {height}; --zoom: {zoom:g}">
<h3>{title}</h3>
<p class="weak">{escape(view.text)}</p>
<div class="tools" role="group" aria-label="{title}: products and size">
<label>Left <select name="left">{left}</select></label>
<label>Right <select name="right">{right}</select></label>
<label>Boundary <input type="range" name="split" min="0" max="100" value="50"></label>
<label>Size <input type="range" name="zoom" min="0.5" max="8" step="0.5" value="{zoom:g}">
<output></output></label>
<label><input type="checkbox" name="beside"> All side by side</label>
</div>
<div class="scroll" tabindex="0" role="group" aria-label="{title}: images">
<div class="stacks">
{"".join(stacks)}
</div>
</div>
</section>"""


def _options(names: Sequence[str], chosen: int) -> str:
    return "".join(
        f'<option value="{number}"{" selected" if number == chosen else ""}>{escape(name)}</option>'
        for number, name in enumerate(names)
    )


def _block(parts: Iterable[str | Drawing]) -> str:
    """Paragraphs, and after them the figures."""
    parts = list(parts)
    paragraphs = [f"<p>{escape(part)}</p>" for part in parts if isinstance(part, str)]
    figures = [part.html() for part in parts if isinstance(part, Drawing)]
    return "\n".join([*paragraphs, '<div class="drawings">', *figures, "</div>"])


def _list(rows: Sequence[str] | Mapping[str, str]) -> str:
    """Sentences as a list, or values by name as a table."""
    if isinstance(rows, Mapping):
        cells = (
            f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
            for name, value in rows.items()
        )
        return f"<table>\n{''.join(cells)}\n</table>"
    return f"<ul>\n{''.join(f'<li>{escape(row)}</li>' for row in rows)}\n</ul>"
