"""Which prompts are taken for English: all that are, whatever names are in them."""

from pathlib import Path

import pytest

from attncontrol.bench.prompts import benchmark_prompts
from attncontrol.errors import WordError
from attncontrol.prompts.language import other_language
from attncontrol.prompts.syntax import analyse, nouns

LABELLED = (Path(__file__).parent / "data" / "modifiers.txt").read_text("utf-8").splitlines()
NAMES = """Los Angeles skyline; los angeles, 8k; Las Vegas at night; Leonardo da Vinci; El Capitan;
Rio de Janeiro; Der Spiegel cover; Das Boot; en plein air painting; Tour de France; a die; a man in
a van; cat, dog, 8k, masterpiece; Santa Maria del Fiore; La La Land; Yves Saint Laurent; con man; op
art; art deco; crème brûlée; jalapeño and a cat; Don Quixote; a cat named Иван; 3 cats; sub
sandwich; Die Hard; café de Paris; UN flag; e-mail icon; Mona Lisa; a sign that
says "Das Auto"
""".replace("\n", " ").split("; ")
OTHERS = """ein Hund und eine Katze; Ein roter Hund; der Hund mit Hut; une voiture rouge; un chat et
un chien; un gato y una rana; el perro en la casa; um gato e um sapo na mesa; il gatto sul tavolo;
een kat en een hond; en katt och en hund; bir kedi ve köpek; seekor kucing dan anjing; o pisică
și un câine; кошка и собака; 一只猫和一只青蛙; 猫とカエル; 고양이와 개구리; قطة وضفدع; แมวกับกบ;
एक बिल्ली; γάτα και σκύλος; חתול""".replace("\n", " ").split("; ")


def test_english_is_never_refused():
    labelled = [line.split("=>")[0].strip() for line in LABELLED if "=>" in line]
    bench = [prompt for group in benchmark_prompts().values() for prompt in group]
    assert (len(bench), len(labelled)) == (276, 531)
    assert [prompt for prompt in [*bench, *labelled, *NAMES] if other_language(prompt)] == []


@pytest.mark.parametrize("prompt", OTHERS)
def test_other_languages(prompt):
    with pytest.raises(WordError, match=r"English prompts only, and .*; name the words yourself"):
        nouns(prompt)


def test_the_language_is_named():
    assert other_language("eine Katze mit Hut") == "German"
    assert other_language("猫とカエル") == "Katakana script"
    with pytest.raises(WordError, match="seems to be French"):
        analyse("une voiture rouge et un chat")
