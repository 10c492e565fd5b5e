"""The code page of an archive's names where the archive does not say it: told by the names, and by texts with them.

Zip archives of Windows' own tool, and old tar archives, hold names as bytes in the code page of the machine. A wrong
guess gives names that no annotation has, so one is made only where nothing else fits. That bytes are valid UTF-8 is no
proof: those of two Chinese characters may be, too.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_PUNCTUATION = "\u3001-\u3011\u3014\u3015\u30fb\u30fc\uff08\uff09"
_HAN = f"[\u3005\u4e00-\u9fff{_PUNCTUATION}]"
_CYRILLIC = "[\u0401\u0404\u0406\u0407\u040e\u0410-\u044f\u0451\u0454\u0456\u0457\u045e\u0490\u0491]"
_LATIN = "[\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u00ff\u0152\u0153\u0160\u0161\u0178\u017d\u017e]"
_COMMON = 0.85  # the least share of letters that are among the usual ones of their code page
_ACCENTED = 2 / 3  # the greatest share of a western word's letters that have an accent
_SAMPLE = 50  # names that are looked for in texts
_SHOWN = 4
_PAIR = re.compile(r"[^\0-\x7f]{2}")


@dataclass(frozen=True)
class _CodePage:
    letters: str  # an expression for what may stand in names, beside ASCII
    common: range = range(0)  # first bytes of usual letters of two bytes; empty for alphabets
    second: int = 0x40  # the least second byte of these


# Level 1 of GB 2312, JIS X 0208 and Big5, and the syllables of KS X 1001: the usual characters
_PAGES = {
    "gbk": _CodePage(_HAN, range(0xB0, 0xD8), 0xA1),
    "cp932": _CodePage(f"[\u3041-\u30ff\u3005\u4e00-\u9fff{_PUNCTUATION}]", range(0x81, 0x99)),
    "cp949": _CodePage(f"[\uac00-\ud7a3{_PUNCTUATION}]", range(0xB0, 0xC9), 0xA1),
    "big5": _CodePage(_HAN, range(0xA4, 0xC7)),
    "cp866": _CodePage(_CYRILLIC),
    "cp1251": _CodePage(_CYRILLIC),
    "cp850": _CodePage(_LATIN),
    "cp1252": _CodePage(_LATIN),
    "cp437": _CodePage(_LATIN),
}
# Letters that UTF-8 writes with two bytes: Latin, Greek, Cyrillic, Armenian, Hebrew, Arabic
_SCRIPTS = (
    "[\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f]",
    "[\u0386-\u03ce]",
    "[\u0400-\u052f]",
    "[\u0531-\u0587]",
    "[\u05d0-\u05f4]",
    "[\u0620-\u06ff]",
)
LIKELY = ("gbk", "cp932 (Shift JIS)", "cp949 (EUC-KR)", "big5", "cp1251", "cp866", "cp1252")


def tell_code_page(names: Sequence[bytes], texts: Iterable[bytes], western: str) -> tuple[str, dict[str, str]]:
    """The code page of names that are not ASCII, or an empty text and the likely ones, each with a name as it gives it.

    Texts that hold the names in one code page decide. Otherwise it is UTF-8 if that gives words; else the only one in
    which all names are words of its script. `western`, the usual page of a western machine, is preferred to others.
    """
    decoded: dict[str, tuple[str, ...]] = {}
    for page in ("utf-8", western, *_PAGES):
        try:
            found = tuple(name.decode(page) for name in names)
        except UnicodeDecodeError:
            continue
        if found not in decoded.values():
            decoded[page] = found
    if held := _held(decoded, texts):
        return held, {}
    utf8 = decoded.pop("utf-8", ())
    if utf8 and _is_plausible_utf8("/".join(utf8)):
        return "utf-8", {}
    likely = [page for page in decoded if _is_plausible("/".join(decoded[page]), page)]
    if latin := [page for page in likely if _PAGES[page].letters == _LATIN]:
        # one letter of another script among ASCII is a letter with an accent
        others = [page for page in likely if page not in latin and any(map(_PAIR.search, decoded[page]))]
        likely = [*([western] if western in latin else latin), *others]
    if len(likely) == 1 or (utf8 and not likely):
        return (likely or ["utf-8"])[0], {}
    return "", {page: decoded[page][0] for page in likely[:_SHOWN]}


def _held(decoded: dict[str, tuple[str, ...]], texts: Iterable[bytes]) -> str:
    """The code page in which texts hold most of the names; empty if they hold none, or as many in two pages."""
    wanted = {page: {_last_part(name) for name in names[:_SAMPLE]} for page, names in decoded.items()}
    held: dict[str, set[str]] = {page: set() for page in wanted}
    for text in texts:
        for page, parts in wanted.items():
            held[page] |= {part for part in parts - held[page] if _is_in(part, text)}
    ranked = sorted(held, key=lambda page: -len(held[page]))
    most = [len(held[page]) for page in ranked] + [0, 0]
    return ranked[0] if most[0] > most[1] else ""


def _is_in(part: str, text: bytes) -> bool:
    return part.encode() in text or json.dumps(part)[1:-1].encode() in text


def _last_part(name: str) -> str:
    """The last part of a path that is not ASCII, without its suffix."""
    parts = [each for each in re.split(r"[/\\]", name) if not each.isascii()]
    stem, _, suffix = parts[-1].rpartition(".")
    return stem if stem and suffix.isascii() and not stem.isascii() else parts[-1]


def _is_plausible_utf8(name: str) -> bool:
    """Whether names have letters of three bytes, which no code page gives by chance, or words in one script each."""
    if any(each >= "\u0800" for each in name):
        return True
    words = re.findall(r"[^\W\d_]+", unicodedata.normalize("NFC", name))
    return all(any(re.fullmatch(f"(?:[A-Za-z]|{letters})*", word) for letters in _SCRIPTS) for word in words)


def _is_plausible(name: str, page: str) -> bool:
    """Whether names consist of ASCII and usual words in the script of a code page."""
    letters, common = _PAGES[page].letters, _PAGES[page].common
    others = [each for each in name if not each.isascii()]
    if not all(re.match(letters, each) for each in others):
        return False
    if common:
        script = [each.encode(page) for each in others if not re.match(f"[{_PUNCTUATION}]", each)]
        usual = sum(pair[0] in common and pair[1] >= _PAGES[page].second for pair in script)
        return usual >= max(1, _COMMON * len(script))
    words = [word for word in re.findall(r"[^\W\d_]+", name) if not word.isascii()]
    return all(
        _has_few_accents(word, letters) and (word.isupper() or not word[1:] or word[1:].islower()) for word in words
    )


def _has_few_accents(word: str, script: str) -> bool:
    """Whether a word is all in one script, or has no more letters with accents than western words have."""
    others = sum(not each.isascii() for each in word)
    return others == len(word) if script != _LATIN else others <= max(1, len(word) * _ACCENTED)
