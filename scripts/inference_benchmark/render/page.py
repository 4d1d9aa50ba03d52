"""One HTML file that needs nothing else: style, scripts and data are inside, and it may fetch nothing."""

import base64
import errno
import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from inference_benchmark.render import palette
from inference_benchmark.units import format_bytes, format_half_width, format_number

#: Of Vega-Lite; the newest that vl_convert has, which draws the static charts too.
_VEGA_LITE = "6.4"


def render(template: Path, scripts: bool = False, **context: Any) -> str:
    """A page from a template and the files beside it: page.css and, with scripts, page.js, choose.js and Vega.

    Everything in the context is escaped. The page's own policy allows only its style and scripts, by their digests:
    text from a name or a record could not run even if it were not escaped. Raises OSError naming a file that is not
    there.
    """
    folder, loader = template.parent, jinja2.FileSystemLoader(template.parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"bytes": format_bytes, "number": format_number, "half_width": format_half_width}
    environment.filters |= {"data": _data, "texts": _texts, "settings": _settings}

    def text_of(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    try:
        page = environment.get_template(template.name)
        style = palette.css() + text_of("page.css")
        codes = [_vega(), *map(text_of, ("page.js", "choose.js"))] if scripts else []
        return page.render(csp=_policy(style, codes), style=Markup(style), scripts=[*map(Markup, codes)], **context)
    except jinja2.TemplateNotFound as error:
        # An OSError too, but without the path.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder / error.name)) from None


def _policy(style: str, scripts: list[str]) -> str:
    """A content security policy that allows this style and these scripts, and nothing else: no network, no eval."""
    allowed = " ".join(map(_digest, scripts)) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_digest(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _vega() -> str:
    """Vega, Vega-Lite and vega-embed as one script."""
    import vl_convert

    return f"(()=>{{{vl_convert.javascript_bundle(vl_version=_VEGA_LITE)}}})()"


def _data(value: Any) -> Markup:
    """A value as JSON inside a script element: nothing in it can end the element."""
    text = json.dumps(value, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def _texts(values: tuple[Any, ...]) -> list[str]:
    """A row of a table whose cells are lists."""
    return ["; ".join(map(str, value)) if isinstance(value, (list, tuple)) else value for value in values]


def _settings(model: dict[str, Any]) -> str:
    return "; ".join(f"{key}: {value}" for key, value in model.items() if key != "name")
