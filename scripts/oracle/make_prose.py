"""Writes the prose fixture: chapter 24 of Jane Austen's Northanger Abbey, from Debian's r-cran-janeaustenr.

    apt-get download r-cran-janeaustenr=1.0.0-1 && dpkg-deb -x r-cran-janeaustenr_1.0.0-1_all.deb unpacked
    python scripts/oracle/make_prose.py --package unpacked --out tests/fixtures/prose

R keeps each novel as a vector of printed lines; a paragraph becomes one line here, paragraphs are separated by an
empty one, and emphasis marks (underscores) are dropped.
"""

import argparse
import re
import struct
import zlib
from pathlib import Path

DATABASE = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
TITLE, CHAPTER = "NORTHANGER ABBEY", 24


def objects(database: bytes):
    """The inflated objects of an R lazy-load database: records of a four-byte size and a zlib stream."""
    while database:
        decoder = zlib.decompressobj()
        yield decoder.decompress(database[4:])
        database = decoder.unused_data


def lines(serialized: bytes) -> list[str]:
    """All character vectors' elements in R's XDR serialisation, in order (flag word …09, length, bytes)."""
    return [
        serialized[m.end() : m.end() + struct.unpack(">i", m.group(1))[0]].decode()
        for m in re.finditer(rb"\x00\x04\x00\x09(\x00\x00..)", serialized, re.DOTALL)
    ]


def paragraphs(novel: list[str], chapter: int) -> list[str]:
    """One chapter's paragraphs, without its heading."""
    start = novel.index(f"CHAPTER {chapter}") + 1
    text = "\n".join(novel[start : novel.index(f"CHAPTER {chapter + 1}")])
    return [" ".join(p.split()).replace("_", "") for p in re.split(r"\n\s*\n", text) if p.strip()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    novels = map(lines, objects((args.package / DATABASE).read_bytes()))
    novel = next(novel for novel in novels if any(TITLE in line for line in novel[:5]))
    chosen = paragraphs(novel, CHAPTER)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "austen-northanger-abbey.txt"
    path.write_text("\n\n".join(chosen) + "\n", encoding="utf-8")
    print(path, path.stat().st_size, "bytes", len(chosen), "paragraphs")


if __name__ == "__main__":
    main()
