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
        loader=jinja2.PackageLoader("trainer.evaluation", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = percent
    folder = importlib.resources.files("trainer.evaluation").joinpath("page")
    style = markupsafe.Markup(folder.joinpath("report.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(style=style, **values)
