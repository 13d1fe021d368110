"""Templates -> answers. Everything in a template is escaped; everything that it names must be given."""

from pathlib import Path
from typing import Any

import jinja2
from starlette.requests import Request
from starlette.responses import Response
from starlette.templating import Jinja2Templates

from triage.core.access import LONGEST_NAME
from triage.core.report import DISCLAIMER
from triage.edges.store.accounts import SHORTEST_PASSWORD
from triage.web import wording
from triage.web.auth import FORM_KEY_FIELD


def _templates() -> Jinja2Templates:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        disclaimer=DISCLAIMER,
        wording=wording,
        longest_name=LONGEST_NAME,
        shortest_password=SHORTEST_PASSWORD,
        form_key_field=FORM_KEY_FIELD,
    )
    return Jinja2Templates(env=environment)


TEMPLATES = _templates()


def render(request: Request, name: str, status_code: int = 200, **shown: Any) -> Response:
    """A page, or a part of one. `actor`: who asks, as far as that was found out."""
    shown["actor"] = getattr(request.state, "actor", None)
    return TEMPLATES.TemplateResponse(request, name, shown, status_code=status_code)
