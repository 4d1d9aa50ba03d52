"""Parsing and formatting of sizes, durations and figures."""

import re

_FACTORS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_FACTORS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = re.compile(rf"^\s*([0-9]{{1,18}}(?:\.[0-9]{{1,18}})?)\s*({'|'.join(_FACTORS)})\s*$")


def parse_bytes(text: str | int | None) -> int | None:
    """Bytes from an integer or a text such as ``80 GB`` or ``1.5 GiB``; None stays None. Raises ValueError if the text
    is not a size or the size is below one byte or beyond 63 bits."""
    if text is None or (isinstance(text, int) and not isinstance(text, bool) and text > 0):
        return text
    match = _SIZE.match(text) if isinstance(text, str) else None
    n_bytes = round(float(match[1]) * _FACTORS[match[2]]) if match else 0
    if not 1 <= n_bytes < 2**63:
        raise ValueError(f"{text!r} is not a size such as '80 GB' or '1.5 GiB' ({', '.join(_FACTORS)})")
    return n_bytes


def format_number(value: float, digits: int = 3) -> str:
    """A figure with this many significant digits, all digits from 1000 on: ``0.0236``, ``42.2``, ``21,278``."""
    text = f"{value:.{digits}g}"
    return f"{value:,.0f}" if abs(value) >= 1000 or "e+" in text else text


def format_figure(value: float, spec: str) -> str:
    """A value in the format of its table, or with three significant digits if that shows fewer than two of them.
    ``45.30``, ``0.13``, but ``0.0016`` for ``.2f``; ``1.5%``, but ``0.0412%`` for ``.1%``. ``1,235`` for ``.3g``."""
    text = format(value, spec)
    if "e+" in text:
        return f"{value:,.0f}"
    if value == 0 or len(re.sub(r"\D", "", text).lstrip("0")) > 1:
        return text
    return f"{value * 100:.3g}%" if spec.endswith("%") else f"{value:.3g}"


def format_half_width(share: float) -> str:
    """Half of an interval as a part of its figure: ``1.2%``, of a narrow one the first digit: ``0.03%``."""
    text = f"{share:.1%}"
    # What is left of samples that are all the same is noise of arithmetic.
    return f"{share * 100:.1g}%" if text == "0.0%" and share > 1e-6 else text


def format_bytes(n_bytes: float) -> str:
    """Bytes with a decimal unit: ``1.31 GB``."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while abs(n_bytes) >= 1000 and len(units) > 1:
        n_bytes /= 1000
        del units[0]
    return f"{n_bytes:.0f} {units[0]}" if units[0] == "B" else f"{n_bytes:.3g} {units[0]}"


def format_duration(seconds: float) -> str:
    """A rounded duration: ``8 s``, ``2 min 05 s``, ``3 h 12 min``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
