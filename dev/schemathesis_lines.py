"""Tells Schemathesis about lines of JSON, whose schema is a text."""

import json

import schemathesis
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.core.parameters import ParameterLocation

LINES = "application/x-ndjson"


@schemathesis.hook
def before_call(ctx, case, kwargs):
    """A link from another answer puts an object in place of the text. It becomes a line."""
    if case.media_type == LINES and isinstance(case.body, dict):
        case.body = json.dumps(case.body) + "\n"


@schemathesis.hook
def filter_failure(ctx, failure, case, response):
    """Each body is a text once it is sent, so none breaks the schema. What else breaks it must be refused."""
    negated = isinstance(failure, AcceptedNegativeData) and case.meta.is_negative_at(ParameterLocation.BODY)
    return not (negated and case.media_type == LINES)


@schemathesis.serializer(LINES)
def lines(ctx, value):
    return str(value).encode("utf-8", errors="surrogatepass")
