"""Writes SHA256SUMS over all files of a fixtures folder: make_sums.py tests/fixtures"""

import hashlib
import sys
from pathlib import Path

folder = Path(sys.argv[1])
files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != "SHA256SUMS")
sums = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in files]
(folder / "SHA256SUMS").write_text("".join(sums))
