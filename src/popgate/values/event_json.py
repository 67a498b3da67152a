"""An event's fields as JSON, for the log and for the history of grants: a line costs a microsecond.

`json.dumps` makes its encoder anew each time and keeps a list of pieces; fields are flat and few.
"""

import json
from json.encoder import encode_basestring_ascii

from popgate.values.event import Event


def json_members(event: Event, longest: int) -> str:
    """The name and the fields that have a value as members of an object, without its braces:
    `"event":"grant.allow","client":"192.0.2.1"`, all ASCII. Text is cut after `longest` characters."""
    members = f'"event":"{event.name}"'
    for name, field in event.fields.items():
        if type(field) is str:
            text = field if len(field) <= longest else field[:longest]
            members += f',"{name}":{encode_basestring_ascii(text)}'
        elif type(field) is int:
            members += f',"{name}":{field}'
        elif field is not None:
            members += f',"{name}":{json.dumps(field)}'
    return members
