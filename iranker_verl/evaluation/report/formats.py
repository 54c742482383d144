"""Numbers as the texts of tables and pages; what is not known is a dash."""

from __future__ import annotations


def hundred(value: float | None, scale: int = 100) -> str:
    """Return a share times 100, or a dash."""
    return "–" if value is None else f"{scale * value:.2f}"


def signed(value: float | None, digits: int = 2) -> str:
    """Return a difference of shares times 100 with its sign, or a dash."""
    return "–" if value is None else f"{100 * value:+.{digits}f}".replace("-", "−")


def stars(p: float) -> str:
    """Return ``***`` below 0.001, ``**`` below 0.01, ``*`` below 0.05; used only beside their p."""
    return next((" " + "*" * n for n, level in ((3, 0.001), (2, 0.01), (1, 0.05)) if p < level), "")


def p_text(p: float) -> str:
    """Return a p value with as many digits as it bears."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def number(value: float | None, digits: int = 3) -> str:
    """Return a number, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share in per cent, or a dash."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def whole(value: float | None) -> str:
    """Return a number of 100 or more without decimals, a smaller one with one; or a dash."""
    return "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def duration(seconds: float | None) -> str:
    """Return seconds as hours, minutes and seconds, or a dash."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
