"""Renders templates with Python's jinja2 in the environment that transformers sets up for apply_chat_template.

Reads one JSON object per line: {"template": text, "variables": object}. Writes one per line: {"text": rendered} or
{"error": message}, with "raised" if the template itself called raise_exception. strftime_now shows FIXED_TIME in UTC.
"""

import datetime
import functools
import json
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox

FIXED_TIME = 1700000000


class Generation(jinja2.ext.Extension):
    """{% generation %} ... {% endgeneration %}: the body is called like a macro and printed."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_print"), [], [], body).set_lineno(line)

    def _print(self, caller):
        return caller()


class Raised(jinja2.exceptions.TemplateError):
    """What raise_exception raises."""


def raise_exception(message):
    raise Raised(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def strftime_now(pattern):
    return datetime.datetime.utcfromtimestamp(FIXED_TIME).strftime(pattern)


def make_environment():
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment


@functools.lru_cache(maxsize=64)
def compiled(environment, source):
    return environment.from_string(source)


def render(environment, case):
    try:
        text = compiled(environment, case["template"]).render(**case["variables"])
        text.encode("utf-8")
        return {"text": text}
    except Raised as error:
        return {"error": str(error), "raised": True}
    except Exception as error:  # every kind of failure is an answer here
        return {"error": f"{type(error).__name__}: {error}"}


def main():
    environment = make_environment()
    for line in sys.stdin:
        print(json.dumps(render(environment, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
