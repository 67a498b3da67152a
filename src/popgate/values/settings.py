"""What a settings field carries beside its type.

Each package has one settings dataclass whose fields are
`Annotated[type, Doc("..."), ...]`. The configuration reader, the sample file and the
reference are all made from it.
"""

from popgate.values.value import value


@value
class Doc:
    """`text`: one or two sentences for the administrator. `example`: a TOML value to show."""

    text: str
    example: str = ""


@value
class Bounds:
    """The least and the greatest number that a field accepts, both included; `unit` in words."""

    least: float
    greatest: float
    unit: str = ""
