"""docs/glossary.md explains each word once, in one sentence, and only words that somebody meets."""

from __future__ import annotations

import re

from tests.docs.documents import DOCUMENTS, ROOT, sections

GLOSSARY = ROOT / "docs" / "glossary.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
ROW = re.compile(r"^\| (?!word |---)([^|]+?) \| ([^|]+?) \|$", re.MULTILINE)
MEANINGS = dict(ROW.findall(GLOSSARY.read_text()))
WORDS = [word for words in MEANINGS for word in words.split(", ")]
# Sentences of the documents begin with a word, ids have underscores: `dead_letters_total` uses "dead letter".
MET = "\n".join(each.read_text() for each in DOCUMENTS if each != GLOSSARY).lower().replace("_", " ")


def words_of(text: str) -> list[str]:
    return [word for words, _ in ROW.findall(text) for word in words.split(", ")]


def test_a_word_is_explained_once_here_or_for_those_who_change_the_code() -> None:
    of_the_code = words_of(sections(CONTRIBUTING.read_text())["Glossary"].split("### Not these")[0])
    ours = words_of(GLOSSARY.read_text())
    assert min(len(ours), len(of_the_code)) > 15
    explained = [*ours, *of_the_code]
    assert [word for word in explained if explained.count(word) > 1] == []


def test_every_word_is_one_that_the_other_documents_use() -> None:
    unused = [word for word in WORDS if not re.search(rf"\b{re.escape(word.lower())}", MET)]
    assert unused == [], "leave out what nobody meets"


def test_a_word_is_explained_in_one_sentence() -> None:
    for words, meaning in MEANINGS.items():
        assert re.fullmatch(r"[A-Z][^.]*(\.\w[^.]*)*\.", re.sub(r"\]\([^)]*\)", "]", meaning)), (words, meaning)


def test_what_a_newcomer_asks_about_first_is_here() -> None:
    assert {"versionTag", "job", "contact", "lane", "parked", "intent", "settle", "fact", "in doubt"} <= set(WORDS)
