"""The pages for a browser: one file each, which loads nothing.

The templates lie in `page/` and are rendered with autoescape, so a genre may be called anything.
"""

import functools
import importlib.resources
from typing import Any

import jinja2
import markupsafe

from common import tables

percent = functools.partial(tables.percent, unknown="unknown")


def render(template: str, **values: Any) -> str:
    """Renders a template with these values and, as `style`, the style sheet of all pages."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = percent
    style = markupsafe.Markup(_resource("report.css"))
    return environment.from_string(_resource(template)).render(style=style, **values)


def _resource(name: str) -> str:
    """Reads a file of the folder `page` beside this one."""
    folder = importlib.resources.files("trainer.evaluation").joinpath("page")
    return folder.joinpath(name).read_text(encoding="utf-8")
