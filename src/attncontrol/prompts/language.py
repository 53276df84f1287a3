"""Which language a prompt is in, as the parse needs it: by its script, and by the small words that
every sentence has.

A prompt is taken for another language if most of its letters are not Latin, or if more different
small words of that language are in it than of English: an indefinite article or a "with" alone, or
two of the others, which single names have too ("en plein air", "Santa Maria del Fiore"). Words with
a capital letter count for none ("Los Angeles"), nor do words that English has as well ("die",
"man", "hat"). Prompts without small words, such as lists of tags, are taken for English.
"""

import re
import unicodedata

from attncontrol.errors import WordError

_WORDS = {
    "English": "a an the and or of in on at with without under over above below behind between "
    "beside near by to from for is are was were has his her its their this that these those two "
    "three four into onto next front wearing holding sitting standing no not as it",
    "German": "ein eine einen einem einer eines und der das dem mit auf ist von zwei neben "
    "zwischen unter hinter vor über für einige sind sitzt liegt steht trägt",
    "French": "une un et avec sur dans le les du aux est deux sous près où qui à entre "
    "devant derrière",
    "Spanish": "un una unos unas y con en el los las sobre dos junto bajo es está del al entre",
    "Italian": "un uno una e con il gli su di nel nella sul sulla due sotto accanto che è tra",
    "Portuguese": "um uma uns umas e com em no na dos das ao sobre dois duas sob é está do da",
    "Dutch": "een het en met op twee naast onder is zit op bij",
    "Swedish": "en ett och med på två under bredvid är",
    "Danish": "en et og med på to under ved er",
    "Polish": "i na z ze pod obok dwa oraz jest",
    "Czech": "a na s se vedle dva je pod",
    "Turkish": "bir ve ile iki üzerinde",
    "Indonesian": "seekor sebuah dan dengan di yang dua seorang",
    "Hungarian": "egy és a az két van alatt",
    "Romanian": "un o și cu pe doi sub este",
    "Finnish": "ja on kaksi",
    "Vietnamese": "một và con với trên hai",
}
_ALONE = (
    "ein eine einen einem einer der das und mit une un una unos unas avec uma um een ett och egy "
    "bir seekor sebuah một și jest"
)
_IN_NAMES = "to no e i s o al con"
_SETS = {language: frozenset(words.split()) for language, words in _WORDS.items()}
_ENGLISH = _SETS.pop("English")
_SMALL = {
    language: words - _ENGLISH - frozenset(_IN_NAMES.split()) for language, words in _SETS.items()
}


def require_english(prompt: str) -> None:
    """Raises WordError for a prompt in another language."""
    if language := other_language(prompt):
        raise WordError(
            f"this is done for English prompts only, and {prompt!r} seems to be {language}"
        )


def other_language(prompt: str) -> str | None:
    """The language or the script that a prompt is written in, None if it may be English.

    other_language("ein Hund und eine Katze")  # "German"
    """
    letters = [letter for letter in prompt if letter.isalpha()]
    scripts = [unicodedata.name(letter, "LATIN").split(" ")[0] for letter in letters]
    foreign = [script for script in scripts if script not in ("LATIN", "MODIFIER")]
    if 2 * len(foreign) > len(letters):
        return f"{max(set(foreign), key=foreign.count).capitalize()} script"
    begun = re.match(r"[^\W\d_]+ +[^\W\d_]", prompt)  # of a sentence, or of a name of two words
    sentence = begun is not None and begun[0][-1].islower()
    text = prompt[:1].lower() + prompt[1:] if sentence else prompt
    words = set(re.findall(r"[^\W\d_]+", text))
    counts = {language: len(words & small) for language, small in _SMALL.items()}
    language = max(counts, key=lambda each: counts[each])
    enough = counts[language] >= (1 if words & frozenset(_ALONE.split()) else 2)
    english = {word.lower() for word in words} & _ENGLISH
    return language if enough and counts[language] > len(english) else None
