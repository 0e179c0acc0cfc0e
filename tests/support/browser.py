"""A headless Chromium for the tests: the system's, or one from npm below build/."""

import os
import shutil
import subprocess
from typing import NamedTuple

from tests.support.paths import ROOT

# A Chromium with the libraries and fonts that it needs, unpacked without root.
_PACKAGE = "@sparticuz/chromium@153"
_FOLDER = ROOT / "build" / "browser"
_UNPACK = (
    "import c from '@sparticuz/chromium'; "
    "process.stdout.write(JSON.stringify({path: await c.executablePath()}))"
)
_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{fonts}</dir><cachedir>{cache}</cachedir></fontconfig>
"""


class Browser(NamedTuple):
    """Where the program lies, and the environment that it runs in."""

    path: str
    environment: dict[str, str]


class NoBrowser(Exception):
    """The message says why there is none."""


def chromium() -> Browser:
    """Finds or fetches a Chromium; NoBrowser where neither can be done."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if path := shutil.which(name):
            return Browser(path, {})
    return _of_npm()


def _of_npm() -> Browser:
    if not (shutil.which("npm") and shutil.which("node")):
        raise NoBrowser("no Chromium is installed, and neither are npm and node to fetch one")
    temporary = _FOLDER / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    # The package unpacks its libraries where it believes itself on the machines it is made for.
    environment = os.environ | {
        "TMPDIR": str(temporary),
        "AWS_EXECUTION_ENV": "AWS_Lambda_nodejs22.x",
    }
    try:
        for command in (
            ["npm", "install", "--no-audit", "--no-fund", "--prefix=.", _PACKAGE],
            ["node", "--input-type=module", "--eval", _UNPACK],
        ):
            subprocess.run(
                command, cwd=_FOLDER, env=environment, check=True, capture_output=True, timeout=300
            )
    except (subprocess.SubprocessError, OSError) as error:
        raise NoBrowser(f"no Chromium is installed, and npm can't fetch one ({error})") from None
    # The package's own names fonts below /tmp, and without any font this Chromium ends itself.
    configuration = _FOLDER / "fonts.conf"
    configuration.write_text(_FONTS.format(fonts=temporary / "fonts", cache=temporary / "cache"))
    return Browser(
        str(temporary / "chromium"),
        {
            "LD_LIBRARY_PATH": str(temporary / "al2023" / "lib"),
            "FONTCONFIG_FILE": str(configuration),
        },
    )
