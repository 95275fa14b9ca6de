"""`python -m service.openapi [--check]`: write openapi/openapi.json from the routes, or say that it has drifted."""

import json
import sys
from pathlib import Path

from service.app import create_app
from service.settings import ServiceSettings

TARGET = Path(__file__).resolve().parents[1] / "openapi" / "openapi.json"


def document_text() -> str:
    """The document, formatted so that differences are readable."""
    return json.dumps(create_app(ServiceSettings()).openapi(), indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """0: written, or with --check the same; 1: it has drifted."""
    text = document_text()
    if "--check" in arguments:
        same = TARGET.is_file() and TARGET.read_text("utf-8") == text
        sys.stdout.write("openapi.json is up to date\n" if same else "openapi.json has drifted: make openapi\n")
        return 0 if same else 1
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text, "utf-8")
    sys.stdout.write(f"wrote {TARGET}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
