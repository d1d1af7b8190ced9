"""Reading figures out of what guest commands print."""

import json

from .ui import Failure


def find_json(output):
    """
    The last JSON object in a command's output. A log line of the hypervisor may have broken the guest's line: line feeds
    inside the object are dropped (JSON strings hold none).
    """
    decoder = json.JSONDecoder()
    flat = output.replace("\n", "")
    found, at = None, flat.find("{")
    while at >= 0:
        try:
            found, length = decoder.raw_decode(flat[at:])
            at += length - 1
        except ValueError:
            pass
        at = flat.find("{", at + 1)
    if not isinstance(found, dict):
        raise Failure(f"no JSON in the output: {output.strip()[-300:]!r}")
    return found
