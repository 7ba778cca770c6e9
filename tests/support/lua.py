"""Scripts with other constants, so that small stores reach their limits."""

import hashlib
import re
from dataclasses import replace

from service.store.scripts import Script


def script_with(script: Script, **constants: int) -> Script:
    """The script with other values of these constants, each of which it sets in a line `local NAME = number`."""
    source = script.source
    for name, value in constants.items():
        source, count = re.subn(rf"(?m)^local {name} = \d+", f"local {name} = {value}", source)
        if count != 1:
            raise ValueError(f"{script.name}.lua has no constant {name}")
    return replace(script, source=source, sha=hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())
