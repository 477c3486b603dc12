"""Tells Schemathesis how to send lines of JSON, whose schema is a text."""

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(ctx, value):
    return str(value).encode("utf-8", errors="surrogatepass")
