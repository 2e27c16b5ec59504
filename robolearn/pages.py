"""Pages of HTML that stand alone: this package's templates with figures in them."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def page(template: str, **values: Any) -> str:  # noqa: ANN401 (whatever the template shows)
    """The page that a template of this package makes of values; text in them is escaped."""
    environment = Environment(
        loader=PackageLoader("robolearn", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"percent": percent, "duration": duration}
    return environment.get_template(template).render(values)


def percent(share: float) -> str:
    """A share as "12.5 %"."""
    return f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """A time as "2 h 5 min", "3 min 4 s" or "5.6 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
