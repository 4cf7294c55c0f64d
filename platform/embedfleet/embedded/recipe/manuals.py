"""Manual pages as a source: what a page's NAME says it does, and how its DESCRIPTION begins.

Roff is read as text: macros and escapes that only set type are dropped, the words stay.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from embedfleet.embedded.recipe.pairs import Pair, cut

__all__ = ["MANUAL_PACKAGES", "manual_pairs", "page_pair", "plain"]

MANUAL_PACKAGES: Final = (
    *("manpages", "manpages-dev", "git-man", "coreutils", "util-linux", "systemd", "iproute2"),
    *("tcl8.6-doc", "tk8.6-doc", "libssl-doc", "netpbm", "erlang-manpages"),
    *("libcurl4-doc", "lvm2", "openssh-client", "graphviz", "moreutils", "rsync", "dpkg-dev"),
    *("debhelper", "devscripts", "bind9-dnsutils", "btrfs-progs", "xfsprogs", "sox", "gnupg-utils"),
    *("ncurses-doc", "allegro5-doc", "libarchive-dev", "libbsd-dev", "slurm-client", "bind9utils"),
    *("texlive-binaries", "samba-common-bin", "imagemagick-6-common", "nmap", "apt", "git-annex"),
    *("libmagic-dev", "libpcap0.8-dev", "libsndfile1-dev", "libncurses-dev", "docbook-utils"),
    *("mercurial-common", "subversion", "rrdtool", "lxc", "nftables", "iptables", "cryptsetup-bin"),
    *("libsys-virt-perl", "libmoose-perl", "liblwp-protocol-https-perl", "libdatetime-perl"),
)

_ESCAPES: Final = (
    (re.compile(r"\\f(\[[^\]]*\]|\(..|.)"), ""),
    (re.compile(r"\\s[-+]?\d+"), ""),
    (re.compile(r"\\\*(\[[^\]]*\]|\(..|.)"), ""),
    (re.compile(r"\\\((aq|cq|oq)|\\\[(aq|cq|oq)\]"), "'"),
    (re.compile(r"\\\((dq|lq|rq)|\\\[(dq|lq|rq)\]"), '"'),
    (re.compile(r"\\\((em|en)|\\\[(em|en)\]"), "-"),
    (re.compile(r"\\\[[^\]]*\]|\\\(.."), " "),
    (re.compile(r"\\[|&^/,%:)]"), ""),
    (re.compile(r"\\[~0 ]"), " "),
    (re.compile(r"\\e"), r"\\"),
    (re.compile(r"\\(.)"), r"\1"),
)
_WORDS: Final = frozenset(
    (
        *("B", "I", "R", "BR", "RB", "BI", "IB", "IR", "RI", "SM", "SB", "Nm", "Ar", "Fl", "Pa"),
        *("Cm", "Em", "Sy", "Li", "Ic", "Xr", "Dq", "Sq", "Ql", "Va", "Vt", "Fa", "Fn", "Ev"),
        *("Er", "Dv", "Op"),
    )
)
_SECTION: Final = re.compile(r"^\.S[Hh]\s+", re.M)


def manual_pairs(folder: Path, package: str) -> Iterator[Pair]:
    """Pair what each English page of a package does with how it is described."""
    for file in sorted(folder.glob("usr/share/man/man*/*.gz")):
        if not file.is_file():  # links into packages that are not here
            continue
        pair = page_pair(gzip.decompress(file.read_bytes()).decode("utf-8", "replace"), package)
        if pair is not None:
            yield pair


def page_pair(page: str, package: str) -> Pair | None:
    """Read one page, or None where it has no name or no description."""
    page = re.sub(r"^['.]\\\".*$", "", page, flags=re.M)
    sections: dict[str, str] = {}
    for part in _SECTION.split(page)[1:]:
        title, _, body = part.partition("\n")
        sections.setdefault(title.strip().strip('"').upper(), body)
    name, description = sections.get("NAME", ""), sections.get("DESCRIPTION", "")
    found = re.search(r"^\.Nd\s+(.+)$", name, re.M)
    does = plain(found[1]) if found else re.split(r"\s+-{1,2}\s+", plain(name), maxsplit=1)[-1]
    if not does or does == plain(name):
        return None
    document = re.sub(re.escape(does), "", plain(description), flags=re.I)
    return Pair(package, cut(does, 160), cut(document))


def plain(roff: str) -> str:
    """Return the words of a piece of roff in one line."""
    words = []
    for line in roff.splitlines():
        if line.startswith((".", "'")):
            macro, _, rest = line[1:].strip().partition(" ")
            line = " ".join(re.findall(r'"[^"]*"|\S+', rest)) if macro in _WORDS else ""
            line = line.replace('"', "")
        for pattern, replacement in _ESCAPES:
            line = pattern.sub(replacement, line)
        words += line.split()
    return " ".join(words)
