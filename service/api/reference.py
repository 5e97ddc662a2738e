"""The page that shows OpenAPI to people: made by the service, without scripts or the network."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from service.api.headers import CONTENT_SECURITY_POLICY

Json = Mapping[str, Any]
DOCUMENT = "openapi.json"  # beside the page


@dataclass(frozen=True)
class Field:
    """A parameter, or a field of a body or an answer: what it may hold, and what it means."""

    name: str
    kind: str
    required: bool
    meaning: str


@dataclass(frozen=True)
class Body:
    """One media type of a request or an answer; `fields` are those of its object."""

    media_type: str
    kind: str
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Answer:
    """One status; `problems` are the ends of the types that it may have."""

    status: str
    meaning: str
    bodies: tuple[Body, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    meaning: tuple[str, ...]
    parameters: tuple[Field, ...]
    bodies: tuple[Body, ...]
    answers: tuple[Answer, ...]

    @property
    def anchor(self) -> str:
        """Its place on the page."""
        return f"{self.method}-{self.path.strip('/').replace('/', '-').replace('{', '').replace('}', '')}"


def operations_of(schema: Json) -> list[Operation]:
    """The operations of an OpenAPI document, in its order."""
    return [
        Operation(
            method=method.upper(),
            path=path,
            meaning=tuple(said.get("description", said.get("summary", "")).split("\n\n")),
            parameters=tuple(map(_parameter, said.get("parameters", ()))),
            bodies=tuple(_bodies(schema, said.get("requestBody", {}))),
            answers=tuple(_answer(schema, status, answer) for status, answer in sorted(said["responses"].items())),
        )
        for path, methods in schema["paths"].items()
        for method, said in methods.items()
    ]


def reference_page(schema: Json) -> tuple[str, str]:
    """The page, and the policy under which a browser shows it."""
    style = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"{CONTENT_SECURITY_POLICY}; style-src 'sha256-{style}'; img-src data:"
    objects = {
        name: tuple(_fields(schema, one))
        for name, one in schema["components"]["schemas"].items()
        if one.get("properties")
    }
    page = TEMPLATE.render(info=schema["info"], operations=operations_of(schema), objects=objects, style=STYLE)
    return page, policy


def prose(text: str) -> Markup:
    """A description with what stands in backticks as code; the OpenAPI document, where it is named, is linked."""
    coded = re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(coded.replace(f"<code>/{DOCUMENT}</code>", f'<a href="{DOCUMENT}"><code>/{DOCUMENT}</code></a>'))


def _parameter(said: Json) -> Field:
    return Field(said["name"], f"{said['in']}, {_kind(said['schema'])}", said.get("required", False), _meaning(said))


def _bodies(schema: Json, holder: Json) -> Iterator[Body]:
    for media_type, content in holder.get("content", {}).items():
        shape = content.get("schema", {})
        yield Body(media_type, _kind(shape), () if "$ref" in shape else tuple(_fields(schema, shape)))


def _answer(schema: Json, status: str, said: Json) -> Answer:
    contents = said.get("content", {})
    problems = tuple(slug for content in contents.values() for slug in content.get("examples", ()))
    bodies = () if problems else tuple(_bodies(schema, said))
    return Answer(status, said.get("description", ""), bodies, problems)


def _fields(schema: Json, shape: Json) -> Iterator[Field]:
    required = shape.get("required", ())
    for name, said in shape.get("properties", {}).items():
        yield Field(name, _kind(said), name in required, _meaning(said))


def _meaning(said: Json) -> str:
    default = said.get("schema", said).get("default")
    meaning = said.get("description", "")
    if default in (None, [], ""):
        return str(meaning)
    shown = str(default).lower() if isinstance(default, bool) else default
    return f"{meaning}; default {shown}" if meaning else f"default {shown}"


def _kind(shape: Json) -> str:
    """A schema in a few words."""
    if "$ref" in shape:
        return str(shape["$ref"]).rpartition("/")[2]
    if "anyOf" in shape:
        return " or ".join(dict.fromkeys(map(_kind, shape["anyOf"])))
    if "enum" in shape:
        return " | ".join(map(str, shape["enum"]))
    if "const" in shape:
        return str(shape["const"])
    kind = str(shape.get("type", "anything"))
    if kind == "array":
        kind = f"array of {_kind(shape.get('items', {}))}"
    if "format" in shape:
        kind = f"{shape['format']} {kind}"
    least, most = _bounds(shape)
    if least is not None and most is not None:
        return f"{kind}, {least:g}–{most:g}"
    if most is not None:
        return f"{kind}, at most {most:g}"
    return kind if least is None else f"{kind}, at least {least:g}"


def _bounds(shape: Json) -> tuple[float | None, float | None]:
    least = next((shape[key] for key in ("minimum", "minItems", "minLength") if key in shape), None)
    most = next((shape[key] for key in ("maximum", "maxItems", "maxLength") if key in shape), None)
    return least, most


STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 0 auto; padding: 1rem; }
code, .method { font-family: ui-monospace, monospace; font-size: .9em; }
nav ul { columns: 18rem; list-style: none; padding: 0; }
section { border-top: 1px solid color-mix(in srgb, currentColor 25%, transparent); margin-top: 1.5rem; }
h2 { font-size: 1.15rem; } h3 { font-size: 1rem; margin-bottom: .25rem; }
.method { font-weight: 700; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .2rem .75rem .2rem 0; }
tr + tr { border-top: 1px solid color-mix(in srgb, currentColor 12%, transparent); }
"""

PAGE = """\
{% macro table(fields, required) %}
<div class="wide"><table>
<tr><th scope="col">name</th><th scope="col">holds</th><th scope="col">meaning</th></tr>
{% for field in fields %}
<tr><td><code>{{ field.name }}</code>{% if required and field.required %} (required){% endif %}</td>
<td>{{ field.kind }}</td><td>{{ field.meaning | prose }}</td></tr>
{% endfor %}
</table></div>
{% endmacro %}
{% macro body(one, required) %}
<p><code>{{ one.media_type }}</code>: {{ one.kind }}</p>
{% if one.fields %}{{ table(one.fields, required) }}{% endif %}
{% endmacro %}
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ info.title }}: the HTTP API</title>
<link rel="icon" href="data:,">
<style>{{ style | safe }}</style>
</head>
<body>
<main>
<h1>{{ info.title }} {{ info.version }}</h1>
<p>{{ info.description | prose }}</p>
<nav aria-label="Routes"><ul>
{% for one in operations %}
<li><a href="#{{ one.anchor }}"><span class="method">{{ one.method }}</span> <code>{{ one.path }}</code></a></li>
{% endfor %}
</ul></nav>
{% for one in operations %}
<section id="{{ one.anchor }}">
<h2><span class="method">{{ one.method }}</span> <code>{{ one.path }}</code></h2>
{% for paragraph in one.meaning %}<p>{{ paragraph | prose }}</p>{% endfor %}
{% if one.parameters %}<h3>Parameters</h3>{{ table(one.parameters, true) }}{% endif %}
{% if one.bodies %}<h3>Body</h3>{% for each in one.bodies %}{{ body(each, true) }}{% endfor %}{% endif %}
<h3>Answers</h3>
{% for answer in one.answers %}
<p><b>{{ answer.status }}</b> {{ answer.meaning | prose }}{% if answer.problems %}:
{% for slug in answer.problems %}<code>{{ slug }}</code>{{ ", " if not loop.last }}{% endfor %}{% endif %}</p>
{% for each in answer.bodies %}{{ body(each, false) }}{% endfor %}
{% endfor %}
</section>
{% endfor %}
<section id="objects">
<h2>Objects</h2>
{% for name, fields in objects.items() %}<h3>{{ name }}</h3>{{ table(fields, false) }}{% endfor %}
</section>
</main>
</body>
</html>
"""

ENVIRONMENT = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
ENVIRONMENT.filters["prose"] = prose
TEMPLATE = ENVIRONMENT.from_string(PAGE)
