"""The page of limits against the settings that hold."""

import re
from pathlib import Path

from service.settings import ServiceSettings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "limits.md"


def test_the_limits_of_the_page_are_the_defaults():
    """Every variable named there is a setting, and the first number beside it is its default."""
    rows = re.findall(r"\|[^|]*\|[^|\d]*([\d.]+)[^|]*\| `MONONPHM_(\w+)` \|", PAGE.read_text("utf-8"))
    defaults = {name: field.default for name, field in ServiceSettings.model_fields.items()}
    assert len(rows) > 8
    for number, name in rows:
        assert float(number) == float(defaults[name.lower()]), name
