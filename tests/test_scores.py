"""Scores: those of the bundled world, and adapters of CLIP, BLIP, DETR and OWL-ViT at a tiny size,
beside slow restatements or with weights that make the answer known."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from attncontrol.errors import ModelError, SettingError
from attncontrol.jobs.item import Item
from attncontrol.scores import detector
from attncontrol.scores.blip import Captions, Questions
from attncontrol.scores.clip import Clip, halves, templated
from attncontrol.scores.detector import Detector
from attncontrol.scores.names import Models, of_models, require_scores
from attncontrol.scores.phrases import Named, named_in, noun_phrases
from attncontrol.scores.score import scores_of, values_of
from attncontrol.sprites.scenes import Thing, compose, render
from tests.kit import scorers

PROMPT = "a red cat and a blue frog"


def items(*prompts):
    return [Item(prompt=prompt) for prompt in prompts]


def scene(*things):
    picture, _ = render(compose(tuple(things), np.random.default_rng(5)))
    return Image.fromarray(picture)


@pytest.fixture(scope="module")
def noise():
    values = np.random.default_rng(0).integers(0, 255, (3, 48, 40, 3), dtype=np.uint8)
    return [Image.fromarray(value) for value in values]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return Models(
        str(scorers.clip_folder(root / "clip")),
        str(scorers.captions_folder(root / "captions")),
        str(scorers.vqa_folder(root / "vqa")),
        str(scorers.detr_folder(root / "detr")),
    )


def test_the_bundled_scorer():
    red, blue, green = Thing("cat", "red"), Thing("frog", "blue"), Thing("cat", "green")
    pictures = [scene(red, blue), scene(red), scene(green, blue), scene(red)]
    asked = items(PROMPT, PROMPT, PROMPT, "a quiet sunset")
    scores = scores_of(["present", "bound", "confidence"])
    values = {name: values_of(name, score, pictures, asked) for name, score in scores.items()}
    assert values["present"][:3] == [1.0, 0.0, 1.0]
    assert values["bound"][:3] == [1.0, 0.0, 0.0]
    assert all(0.8 < value <= 1 for value in values["confidence"][:3])
    assert all(math.isnan(of[3]) for of in values.values())


def test_pictures_of_several_sizes_keep_their_order():
    small, large = scene(Thing("cat")), scene(Thing("frog")).resize((192, 192))
    score = scores_of(["present"])["present"]
    asked = items("a cat", "a cat", "a frog", "a frog")
    assert values_of("present", score, [small, large, large, small], asked) == [1, 0, 1, 0]


def test_templates_and_halves():
    texts = templated("a cat")
    assert (len(texts), len(set(texts))) == (80, 56)
    assert {"a photo of a cat.", "a cat in a video game.", "art of a cat."} <= set(texts)
    assert not [text for text in texts if "a a" in text or "the a" in text]
    assert halves(PROMPT) == ["a red cat", "a blue frog"]
    assert halves("a lion with a crown") == ["a lion", "a crown"]
    assert halves("a cat with a bow and a frog") == ["a cat with a bow", "a frog"]
    assert halves("a cat") == []


@torch.inference_mode()
def embedded(clip, *, picture=None, text=None):
    """One at a time, by the whole model."""
    given = clip._processor(
        images=picture or Image.new("RGB", (8, 8)), text=text or "a", return_tensors="pt"
    )
    made = clip._model(**given)
    of = made.image_embeds[0] if picture else made.text_embeds[0]
    return of / of.norm()


def of_prompt(clip, prompt):
    mean = torch.stack([embedded(clip, text=text) for text in templated(prompt)]).mean(0)
    return mean / mean.norm()


def test_clip_similarities(folders, noise):
    scores = scores_of(["clip", "clip-min"], folders)
    asked = items(PROMPT, "a lion with a crown", "a cat")
    clip = Clip(folders.clip, "cpu")
    whole = values_of("clip", scores["clip"], noise, asked)
    for value, picture, item in zip(whole, noise, asked, strict=True):
        reference = embedded(clip, picture=picture) @ of_prompt(clip, item.prompt)
        assert value == pytest.approx(float(reference), abs=1e-5)
    least = values_of("clip-min", scores["clip-min"], noise, asked)
    parts = [of_prompt(clip, part) for part in ("a red cat", "a blue frog")]
    reference = [float(embedded(clip, picture=noise[0]) @ part) for part in parts]
    assert least[0] == pytest.approx(min(reference), abs=1e-5)
    assert abs(reference[0] - reference[1]) > 1e-4
    assert math.isnan(least[2])


def test_pictures_are_seen_once_by_all_scores_of_a_model(folders, noise, monkeypatch):
    scores = scores_of(["clip", "clip-min"], folders)
    times, pictures = [], Clip.pictures
    clip = scores["clip"].__self__
    monkeypatch.setattr(clip._of_pictures, "_make", lambda p: times.append(1) or pictures(clip, p))
    for name, score in scores.items():
        values_of(name, score, noise, items(PROMPT, PROMPT, PROMPT))
    assert len(times) == 1
    values_of("clip", scores["clip"], noise[:1], items(PROMPT))
    assert len(times) == 2


def test_captions_are_compared_with_the_prompt(folders, noise, monkeypatch):
    captions, clip = Captions(folders.captions, "cpu"), Clip(folders.clip, "cpu")
    said = captions(noise)
    assert len(said) == 3
    assert not [text for text in said if text.startswith("a picture of")]
    monkeypatch.setattr(Captions, "__call__", lambda *_: ["a cat", "a frog", "a red cat"])
    values = scores_of(["caption"], folders)["caption"](noise, items(PROMPT, "a frog", PROMPT))
    for value, text, prompt in zip(
        values, ("a cat", "a frog", "a red cat"), (PROMPT, "a frog", PROMPT), strict=True
    ):
        reference = embedded(clip, text=text) @ of_prompt(clip, prompt)
        assert value == pytest.approx(float(reference), abs=1e-5)


def test_answers_are_multiplied_over_noun_phrases(tmp_path, noise):
    """Odds of 3 to 1: 3/4 for every phrase."""
    models = Models(vqa=str(scorers.vqa_folder(tmp_path / "vqa", odds=math.log(3))))
    score = scores_of(["vqa"], models)["vqa"]
    prompts = (PROMPT, "a cat", "quickly")
    values = values_of("vqa", score, noise, items(*prompts))
    assert values[:2] == [pytest.approx(9 / 16), pytest.approx(3 / 4)]
    assert math.isnan(values[2])
    assert noun_phrases(PROMPT) == ("a red cat", "a blue frog")


@torch.inference_mode()
def test_answers_beside_a_slow_restatement(folders, noise):
    """P(yes) / (P(yes) + P(no)) of the first word, one question at a time."""
    questions = Questions(folders.vqa, "cpu")
    model, tokens = questions._model, questions._tokens
    asked = [["a red cat", "a frog"], [], ["a dog"]]
    values = questions.yes(noise, asked)
    reference = []
    for picture, phrases in zip(noise, asked, strict=True):
        pixels = questions._processor.image_processor(picture, return_tensors="pt").pixel_values
        seen = model.vision_model(pixels).last_hidden_state
        for phrase in phrases:
            ids = tokens(f"{phrase}?", return_tensors="pt").input_ids
            ids[0, 0] = len(tokens) + 1  # [ENC]
            states = model.text_encoder(ids, encoder_hidden_states=seen).last_hidden_state
            begin = torch.tensor([[len(tokens)]])  # [DEC]
            logits = model.text_decoder(begin, encoder_hidden_states=states).logits[0, 0]
            yes, no = (logits.softmax(-1)[tokens.vocab[word]] for word in ("yes", "no"))
            reference.append(float(yes / (yes + no)))
    assert values.tolist() == pytest.approx(reference, abs=1e-5)


def test_a_detector_of_a_fixed_list(folders, noise):
    score = scores_of(["detected"], folders)["detected"]
    prompts = ("a cat", "a cat and a frog", "a cat and a dog")
    values = values_of("detected", score, noise, items(*prompts))
    assert values[:2] == [1.0, 0.0]
    assert math.isnan(values[2])  # a dog is not on its list
    assert values_of("detected", score, noise[:1], items("two cats")) == [1.0]


@pytest.mark.parametrize("finds", [True, False])
def test_a_detector_that_finds_what_it_is_asked_for(tmp_path, noise, finds):
    models = Models(detector=str(scorers.owlvit_folder(tmp_path / "owl", finds=finds)))
    score = scores_of(["detected"], models)["detected"]
    values = values_of("detected", score, noise, items("a cat", "a cat and a frog", "quickly"))
    assert values[:2] == [float(finds)] * 2
    assert math.isnan(values[2])


class _Eye:
    """Stands for CLIP: a colour is its own direction."""

    def texts(self, texts):
        names = detector.COLORS
        return torch.tensor([[float(name in text) for name in names] for text in texts])

    def pictures(self, pictures):
        assert [picture.size for picture in pictures] == [(32, 32)]  # what the box cuts out
        red, _, blue = np.asarray(pictures[0]).mean((0, 1))
        return torch.tensor([[red, 0, 0, 0, blue, 0, 0, 0, 0.0, 0]], dtype=torch.float32)


def test_colors_of_what_is_found(folders):
    picture = Image.new("RGB", (64, 64), "blue")
    picture.paste("red", (16, 16, 48, 48))  # where the detector finds a cat
    score = Detector(folders.detector, "cpu").score("detected-colors", _Eye())
    prompts = ("a red cat", "a blue cat", "a gray cat", "a fat cat", "a cat and a blue frog")
    values = score([picture] * 5, items(*prompts))
    assert [values[0], values[1], values[3], values[4]] == [1.0, 0.0, 1.0, 0.0]
    assert math.isnan(values[2])  # gray is none of the ten


def test_what_a_prompt_names():
    assert named_in(PROMPT) == (Named("cat", ("red",)), Named("frog", ("blue",)))
    assert named_in("eine rote Katze und ein blauer Frosch") == ()


def test_models_that_cannot_be_used(folders, tmp_path):
    with pytest.raises(ModelError, match=r"is a model of kind 'detr', and --clip-model takes clip"):
        Clip(folders.detector, "cpu")
    with pytest.raises(ModelError, match=r"cannot be loaded: .* Give --vqa-model a local folder"):
        Questions(str(tmp_path / "nowhere"), "cpu")
    with pytest.raises(ModelError, match=r"lacks \d+ weights of BlipForQuestionAnswering"):
        Questions(folders.captions, "cpu")


def test_names_of_scores():
    with pytest.raises(SettingError, match=r"score 'presnt': did you mean present\?"):
        require_scores(["presnt"], [])
    with pytest.raises(SettingError, match="score 'clip' is there twice"):
        require_scores(["clip", "clip"], [])
    with pytest.raises(
        SettingError, match=r"score 'bound' knows pictures of sprites.* other/model"
    ):
        require_scores(["bound"], ["sprites", "other/model"])
    assert of_models({"sprites", "sprites-flux"}) == ("present", "bound", "confidence")
    assert of_models({"sprites", "other/model"}) == ()


def test_a_score_of_ones_own(tmp_path, monkeypatch, noise):
    (tmp_path / "own_scores_here.py").write_text(
        "import numpy as np\n"
        "def width(pictures, items): return np.array([p.width / len(i.prompt)\n"
        "    for p, i in zip(pictures, items)])\n"
        "def few(pictures, items): return [1.0]\n"
        "def endless(pictures, items): return [float('inf')] * len(pictures)\n"
        "def text(pictures, items): return ['1'] * len(pictures)\n"
        "def nothing(pictures, items): return None\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def values(name):
        score = scores_of([f"own_scores_here:{name}"])[f"own_scores_here:{name}"]
        return values_of(name, score, noise, items("a", "ab", "abcd"))

    assert values("width") == [40.0, 20.0, 10.0]
    for name, said in {"few": "1 values", "endless": "the value inf", "text": "the value '1'",
                       "nothing": "0 values"}.items():  # fmt: skip
        with pytest.raises(SettingError, match=f"score '{name}' gave {said} for 3 pictures"):
            values(name)
    with pytest.raises(SettingError, match="is int, no function"):
        values("number")
    with pytest.raises(SettingError, match="there is no module no_such_module"):
        scores_of(["no_such_module:score"])
