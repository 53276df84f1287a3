"""The inspector's page in a real browser: what is drawn, what the keys do, that two records stay
together."""

import itertools

import pytest
import torch
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from attncontrol.inspector.page import page
from attncontrol.maps.taken import TakenOver
from tests.kit.browser import OpenPage, chromium, needs_chromium
from tests.kit.records import DOWN, PROMPT, UP, made

pytestmark = needs_chromium
LOWEST, HIGHEST = pytest.approx([13, 8, 80], abs=1), pytest.approx([240, 249, 33], abs=1)
"""Of the heat colours, as a canvas with alpha keeps them."""
PIXEL = """
    const canvas = document.querySelectorAll("canvas.overlay")[arguments[0]];
    const at = (share, size) => Math.floor(share * size);
    const [x, y] = [at(arguments[1], canvas.width), at(arguments[2], canvas.height)];
    const pixels = canvas.getContext("2d").getImageData(x, y, 1, 1);
    return Array.from(pixels.data);
"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        yield driver


class Page(OpenPage):
    """A record in the browser."""

    def __init__(self, browser, folder, *records):
        file = folder / "page.html"
        file.write_text(page(*records, titles=("first", "second")), "utf-8")
        super().__init__(browser, file)

    def word(self, name, record=0):
        return self.all(f'.word[data-word="{name}"]')[record]

    def pixel(self, x, y, record=0):
        """RGBA of the overlay at shares of width and height."""
        return self.browser.execute_script(PIXEL, record, x, y)

    def point(self, x, y, record=0):
        """Moves the pointer to a place of the picture."""
        stage = self.all(".stage")[record]
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", stage)
        size = stage.size
        ActionChains(self.browser, 50).move_to_element_with_offset(
            stage, round((x - 0.5) * size["width"]), round((y - 0.5) * size["height"])
        ).perform()

    def hover(self, element):
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        ActionChains(self.browser, 50).move_to_element(element).perform()

    def ranking(self, record=0):
        rows = self.all(".ranking")[record].find_elements(By.CSS_SELECTOR, "li")
        return {
            row.get_attribute("data-word"): float(row.find_element(By.CSS_SELECTOR, ".number").text)
            for row in rows
        }

    def bars(self):
        """(word, low, high) of every colour bar."""
        texts = [
            [bar.find_element(By.CSS_SELECTOR, part).text for part in ("b", ".low", ".high")]
            for bar in self.all(".bar")
        ]
        return [(name, float(low), float(high)) for name, low, high in texts]

    def smooth(self, on):
        if self.one("#smooth").is_selected() != on:
            self.one("#smooth").click()

    def keys(self, *keys):
        ActionChains(self.browser, 20).send_keys(*keys).perform()


def known(scale=1.0, *, height=8, width=8, heads=2, **about):
    """Four steps. "cat": the column 2 step of the left half, in the upper half of the picture;
    "frog": the lower half; "red": even.

    Head 0 sees the double of that, head 1 nothing of cat and frog.
    """
    maps = torch.zeros(1, 1, 4, heads, height, width, 3)
    for step in range(4):
        maps[:, :, step, 0, : height // 2, step, 0] = 0.4
    maps[:, :, :, 0, height // 2 :, :, 1] = 0.2
    maps[..., 2] = 0.05
    return made({DOWN: maps * scale, UP: (maps * scale).clone()}, **about)


@pytest.fixture
def opened(browser, tmp_path):
    found = Page(browser, tmp_path, known())
    found.smooth(False)
    return found


def alpha(opened, x, y, record=0):
    return opened.pixel(x, y, record)[3]


def test_hover_shows_a_word_and_a_click_keeps_it(opened):
    """At the start "cat" is on: low in the lower half, where "frog" is high."""
    assert opened.word("cat").get_attribute("aria-pressed") == "true"
    cat = opened.pixel(0.5, 0.75)
    assert cat[:3] == LOWEST
    opened.hover(opened.word("frog"))
    frog = opened.pixel(0.5, 0.75)
    assert frog[:3] == HIGHEST
    assert frog[3] == round(0.75 * 255)
    opened.point(0.9, 0.1)
    assert opened.pixel(0.5, 0.75) == cat
    opened.word("frog").click()
    opened.point(0.9, 0.1)
    both = opened.pixel(0.5, 0.75)
    assert both[:3] == pytest.approx([56, 160, 245], abs=2)  # the colour of "frog"
    assert [name for name, *_ in opened.bars()] == ["cat", "frog"]
    opened.word("cat").click()
    opened.word("frog").click()
    opened.point(0.9, 0.1)
    assert opened.pixel(0.5, 0.75) == [0, 0, 0, 0]
    assert opened.word("frog").get_attribute("aria-pressed") == "false"


def test_words_can_be_used_by_keyboard(opened):
    opened.browser.execute_script("document.querySelector('.prompt button').focus()")
    assert opened.browser.switch_to.active_element.get_attribute("data-word") == "red"
    opened.keys(Keys.TAB)
    focused = opened.browser.switch_to.active_element
    assert focused.get_attribute("data-word") == "cat"
    assert focused.value_of_css_property("outline-style") == "solid"
    opened.keys(Keys.ENTER)
    assert focused.get_attribute("aria-pressed") == "false"
    opened.keys(Keys.TAB, Keys.SPACE)
    assert opened.word("frog").get_attribute("aria-pressed") == "true"
    assert [name for name, *_ in opened.bars()] == ["frog"]


def test_steps_are_the_recorded_ones(opened):
    """At step k the word is attended from column k; a slider at 0 is the mean."""
    slider = opened.one("#step")
    assert [alpha(opened, (k + 0.5) / 8, 0.25) for k in range(8)] == [191] * 4 + [57] * 4
    for step in range(4):
        slider.send_keys(Keys.ARROW_RIGHT)
        assert [alpha(opened, (k + 0.5) / 8, 0.25) > 100 for k in range(8)] == [
            k == step for k in range(8)
        ]
        assert opened.bars() == [("cat", 0.0, pytest.approx(0.2, rel=0.01))]
        assert slider.get_attribute("aria-valuetext").startswith(f"{step} · t {1000 - step}")
    slider.send_keys(Keys.HOME)
    assert opened.bars() == [("cat", 0.0, pytest.approx(0.05, rel=0.01))]


def test_the_pixel_under_the_pointer_ranks_the_words(opened):
    opened.point(0.55, 0.8)
    assert list(opened.ranking().items()) == [
        ("frog", pytest.approx(0.1, rel=0.01)), ("red", pytest.approx(0.05, rel=0.01)), ("cat", 0),
    ]  # fmt: skip
    opened.one("#step").send_keys(Keys.HOME, Keys.ARROW_RIGHT)
    opened.point(1 / 16, 1 / 16)
    assert next(iter(opened.ranking().items())) == ("cat", pytest.approx(0.2, rel=0.01))
    opened.point(3 / 16, 1 / 16)
    assert next(iter(opened.ranking())) == "red"


def test_cells_can_be_chosen_by_keyboard_and_kept(opened):
    opened.browser.execute_script("document.querySelector('.stage').focus()")
    opened.keys(Keys.ARROW_RIGHT)  # from the middle
    assert opened.one(".card h3 .muted").text == "column 5, row 4"
    opened.keys(Keys.ARROW_UP, Keys.ENTER)
    assert next(iter(opened.ranking())) == "red"
    opened.keys(Keys.TAB)
    assert opened.one(".card h3 .muted").text == "column 5, row 3"
    opened.keys(Keys.ESCAPE)
    assert opened.ranking() == {}


def test_heads_are_shown_over_the_picture(opened):
    thumbs = opened.all(".thumb")
    assert [t.get_attribute("aria-label") for t in thumbs] == [
        "down, head 0",
        "down, head 1",
        "up 1, head 0",
        "up 1, head 1",
    ]
    thumbs[0].click()
    assert opened.bars() == [("cat", 0.0, pytest.approx(0.1, rel=0.01))]
    assert thumbs[0].get_attribute("aria-pressed") == "true"
    opened.keys(Keys.ARROW_RIGHT, Keys.ENTER)
    assert opened.bars() == [("cat", 0.0, 0.0)]
    assert "the same everywhere" in opened.one(".bar .muted").text
    opened.keys(Keys.ARROW_DOWN, Keys.ENTER)
    assert thumbs[3].get_attribute("aria-pressed") == "true"
    opened.keys(Keys.ESCAPE)
    assert opened.bars() == [("cat", 0.0, pytest.approx(0.05, rel=0.01))]


def test_dots_are_heads(opened):
    """ "frog": head 0 is even over 32 of 64 cells, ln 32 / ln 64 = 5/6, and 7 of them hold 7/32;
    head 1 is zero."""
    Select(opened.one(".focus")).select_by_visible_text("frog")
    dots = opened.all(".dot")
    assert [dot.get_attribute("aria-label").split(": ")[1] for dot in dots] == [
        "entropy 0.83, top share 0.22", "entropy 1.00, top share 0.11",
    ] * 2  # fmt: skip
    opened.browser.execute_script("arguments[0].focus()", dots[0])
    opened.keys(Keys.ARROW_RIGHT)
    assert "head 1: entropy 1.00" in opened.one(".said").text
    opened.keys(Keys.ENTER)
    assert dots[1].get_attribute("aria-pressed") == "true"
    assert opened.all(".thumb")[1].get_attribute("aria-pressed") == "true"


def test_agreement_is_the_cosine_of_the_maps(opened):
    """In the mean over steps: cat is 4 x 4 cells of 0.05, frog 4 x 8 of 0.1, red even over 8 x 8:
    1/2 and sqrt(1/2)."""
    pairs = {
        p.get_attribute("data-noun"): float(p.get_attribute("data-agreement"))
        for p in opened.all(".pair")
    }
    assert pairs == {
        "cat": pytest.approx(0.5, abs=0.002),
        "frog": pytest.approx(0.5**0.5, abs=0.002),
    }
    assert "with frog \u25b2" in opened.all(".pair")[1].text
    opened.one("#step").send_keys(Keys.ARROW_RIGHT)
    assert float(
        opened.one('.pair[data-noun="cat"]').get_attribute("data-agreement")
    ) == pytest.approx((4 / 64) ** 0.5, abs=0.002)


def test_layers_opacity_and_scale(browser, tmp_path):
    maps = known()
    maps = maps.replace(layers={DOWN: maps.layers[DOWN], UP: 2 * maps.layers[UP]})
    opened = Page(browser, tmp_path, maps)
    opened.smooth(False)
    group = Select(opened.one("#group"))
    assert [option.text for option in group.options] == ["all layers", "down", "up 1"]
    group.select_by_index(1)
    assert opened.bars()[0][2] == pytest.approx(0.05, rel=0.01)
    group.select_by_index(2)
    assert opened.bars()[0][2] == pytest.approx(0.1, rel=0.01)
    opened.word("frog").click()
    opened.point(0.9, 0.1)
    Select(opened.one("#scale")).select_by_value("shared")
    highest = 0.4  # "cat" in any step
    assert [bar[1:] for bar in opened.bars()] == [(0.0, pytest.approx(highest, rel=0.01))] * 2
    assert alpha(opened, 0.5, 0.75) == pytest.approx(255 * 0.75 * 0.2 / highest, abs=2)
    opened.one("#opacity").send_keys(Keys.END)
    assert alpha(opened, 0.5, 0.75) == pytest.approx(255 * 0.2 / highest, abs=2)


@pytest.mark.parametrize("value", [1.0, 1e-4, 8.0])
def test_constant_maps_do_not_wrap(browser, tmp_path, value):
    """From zero, every pixel has the highest colour, smoothed or not."""
    opened = Page(browser, tmp_path, made({DOWN: torch.full((1, 1, 2, 2, 4, 6, 3), value)}))
    assert opened.bars() == [
        ("cat", pytest.approx(value, rel=0.01), pytest.approx(value, rel=0.01))
    ]
    assert opened.pixel(0.3, 0.6)[:3] == LOWEST
    Select(opened.one("#scale")).select_by_value("zero")
    for smooth in (True, False):
        opened.smooth(smooth)
        for x, y in itertools.product((0.01, 0.4, 0.99), (0.01, 0.7, 0.99)):
            assert opened.pixel(x, y)[:3] == HIGHEST
    opened.point(0.5, 0.5)
    assert opened.ranking() == {
        word: pytest.approx(value, rel=0.01) for word in ("cat", "frog", "red")
    }


def test_pictures_that_are_not_square(browser, tmp_path):
    """The lower half of a wide picture, in a canvas of its shape."""
    maps = known(height=4, width=12)
    maps.pictures = [Image.new("RGB", (96, 32), "gray")]
    opened = Page(browser, tmp_path, maps)
    for selector in (".stage", "canvas.overlay", ".ground img"):
        size = opened.one(selector).size
        assert size["width"] / size["height"] == pytest.approx(3, rel=0.02)
    opened.smooth(False)
    assert opened.browser.execute_script(
        "const c = document.querySelector('canvas.overlay'); return c.width / c.height"
    ) == (pytest.approx(3, rel=0.02))
    opened.hover(opened.word("frog"))
    assert opened.pixel(0.97, 0.55)[:3] == HIGHEST
    assert opened.pixel(0.97, 0.45)[:3] == LOWEST


def test_two_records_stay_together(browser, tmp_path):
    """The second has half the steps, and twice the attention."""
    first, second = known(), known(2.0)
    second = second.replace(
        layers={name: of_layer[:, :, [0, 3]] for name, of_layer in second.layers.items()},
        steps=(0, 3),
        timesteps=(1000.0, 997.0),
        sigmas=(None, None),
    )
    opened = Page(browser, tmp_path, first, second)
    opened.smooth(False)
    assert [title.text for title in opened.all(".record-title")] == ["first", "second"]
    opened.one("#step").send_keys(Keys.END)
    for record in (0, 1):
        assert [alpha(opened, (k + 0.5) / 8, 0.25, record) > 100 for k in range(8)] == [
            k == 3 for k in range(8)
        ]
    assert [bar[2] for bar in opened.bars()] == [
        pytest.approx(0.2, rel=0.01),
        pytest.approx(0.4, rel=0.01),
    ]
    opened.hover(opened.word("frog", 1))
    assert opened.pixel(0.5, 0.75, 0) == opened.pixel(0.5, 0.75, 1)
    assert opened.pixel(0.5, 0.75, 1)[:3] == HIGHEST
    opened.word("red", 1).click()
    assert {
        word.get_attribute("aria-pressed") for word in opened.all('.word[data-word="red"]')
    } == {"true"}
    opened.point(0.5, 0.8, 1)
    assert opened.ranking(0)["frog"] == pytest.approx(0.1, rel=0.01)
    assert opened.ranking(1)["frog"] == pytest.approx(0.2, rel=0.01)
    assert [cell.is_displayed() for cell in opened.all(".cell")] == [True, True]
    opened.all(".thumb")[0].click()
    assert [t.get_attribute("data-layer") for t in opened.all('.thumb[aria-pressed="true"]')] == [
        DOWN,
        DOWN,
    ]


def test_branches_and_images_are_chosen(browser, tmp_path):
    maps = made({DOWN: torch.zeros(2, 2, 1, 1, 2, 2, 3)}, branches=("cond", "uncond"))
    for image in range(2):
        for branch in range(2):
            maps.layers[DOWN][image, branch] = 0.1 * (1 + image) + 0.01 * branch
    opened = Page(browser, tmp_path, maps)
    assert opened.bars()[0][2] == pytest.approx(0.1, rel=0.01)
    Select(opened.one("#branch")).select_by_visible_text("uncond")
    assert opened.bars()[0][2] == pytest.approx(0.11, rel=0.01)
    Select(opened.one("#image")).select_by_value("1")
    assert opened.bars()[0][2] == pytest.approx(0.21, rel=0.01)
    assert "In the branch “uncond”" in opened.one(".notes").text


def test_controls_without_a_choice_are_left_out(browser, tmp_path):
    opened = Page(browser, tmp_path, made({DOWN: torch.rand(1, 1, 1, 1, 4, 4, 3)}))
    for selector in ("#step", "#frame", "#image", "#branch", "#group", ".heads", ".scatter"):
        assert opened.all(selector) == [], selector
    assert opened.all("#opacity")


def test_videos_have_a_frame_slider(browser, tmp_path):
    video = torch.zeros(1, 1, 2, 2, 3, 4, 4, 1)
    video += torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1, 1)
    opened = Page(browser, tmp_path, made({DOWN: video}, ["cat"]))
    opened.one("#frame").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert opened.bars()[0][2] == pytest.approx(0.3, rel=0.01)
    opened.one("#step").send_keys(Keys.ARROW_RIGHT)
    assert opened.bars()[0][2] == pytest.approx(0.3, rel=0.01)


def test_prompts_are_shown_as_text(browser, tmp_path):
    prompt = "a <script>document.title='x'</script> cat <b>frog</b>"
    opened = Page(
        browser, tmp_path, made({DOWN: torch.rand(1, 1, 1, 1, 4, 4, 1)}, ["cat"], prompt=prompt)
    )
    assert opened.one(".prompt").text == prompt
    assert opened.browser.title.startswith(prompt)
    assert opened.all(".prompt b") == []


def test_dark_and_light(opened):
    ground = "return getComputedStyle(document.documentElement).backgroundColor"
    shades = [opened.browser.execute_script(ground)]
    opened.one("#theme").click()
    shades.append(opened.browser.execute_script(ground))
    assert sorted(shades) == ["rgb(18, 19, 22)", "rgb(246, 246, 243)"]


def test_nothing_is_asked_of_the_network_and_nothing_is_complained_about(browser, tmp_path):
    opened = Page(browser, tmp_path, known(), known())
    opened.hover(opened.word("frog"))
    opened.all(".thumb")[0].click()
    console, asked = opened.logs()
    assert console == []
    assert asked
    assert not [message for message in asked if '"url":"http' in message]


def test_the_prompt_keeps_its_words(opened):
    assert opened.one(".prompt").text == PROMPT
    assert [word.text for word in opened.all(".word")] == ["red", "cat", "frog"]


PAIR = """
    const canvas = document.querySelector("canvas.cells");
    const [x, y] = [canvas.width, canvas.height].map((side, k) => Math.floor(arguments[k] * side));
    const pixels = canvas.getContext("2d").getImageData(x, y, 16, 16).data;
    return Array.from(pixels).filter((_, k) => k % 4 === 3).some((alpha) => alpha > 20);
"""


def edited():
    """A source and its edit, "cat" taking the place of "cow": 0.4 in the left half of the source,
    0.2 in that of the edit. Its upper half is the source's after the last two of four steps, and
    all of the attention to "cat" in the first."""
    maps = torch.zeros(2, 1, 4, 2, 8, 8, 2)
    maps[..., :4, 0] = torch.tensor([0.4, 0.2]).view(2, 1, 1, 1, 1, 1)
    maps[..., 4:, 1] = 0.1
    first = made({DOWN: maps, UP: maps.clone()}, ["cow", "frog"], prompt="a cow and a frog")
    second = made({DOWN: maps, UP: maps.clone()}, ["cat", "frog"], prompt="a cat and a frog")
    cells, words = torch.zeros(2, 4, 16, 16, dtype=torch.uint8), torch.zeros(2, 4, 2)
    cells[1, 2:, :8], words[1, 0, 0] = 1, 1.0
    both = {name: (getattr(first, name)[0], getattr(second, name)[0])
            for name in ("prompts", "tokens", "spans")}  # fmt: skip
    pictures = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")]
    taken = TakenOver((0, 0), cells, {DOWN: words})
    return first.replace(**both, pictures=pictures, taken=taken)


def test_a_source_and_its_edit_side_by_side(browser, tmp_path):
    opened = Page(browser, tmp_path, edited())
    assert [title.text for title in opened.all(".record-title")] == ["source", "edited"]
    assert [word.text for word in opened.all(".word")] == ["cow", "frog", "cat", "frog"]
    name = "cow \u2192 cat"
    assert [bar[0] for bar in opened.bars()] == [name, name]  # the change is what one sees first
    assert [bar[2] for bar in opened.bars()] == [
        pytest.approx(0.4, rel=0.01),
        pytest.approx(0.2, rel=0.01),
    ]
    row = opened.one(f'.taken [data-word="{name}"]')
    assert row.get_attribute("data-agreement") == "1.00"
    share = f'.taken [data-word="{name}"] [data-share]'
    assert (
        opened.one(share).get_attribute("data-share") == "0.125"
    )  # a step of four, a layer of two
    assert opened.one(".taken-cells").text == "25 % of the cells, mean over steps"
    opened.one("#step").send_keys(Keys.ARROW_RIGHT)
    assert opened.one(share).get_attribute("data-share") == "0.500"
    assert opened.one(".taken-cells").text.startswith("No cells, after this step")
    assert not browser.execute_script(PAIR, 0.3, 0.1)
    opened.one("#step").send_keys(Keys.END)
    assert opened.one(".taken-cells").text == "50 % of the cells, after this step"
    assert browser.execute_script(PAIR, 0.3, 0.1)
    assert not browser.execute_script(PAIR, 0.3, 0.8)
    opened.one("#cells").send_keys(Keys.SPACE)
    assert not browser.execute_script(PAIR, 0.3, 0.1)
    Select(opened.one("#group")).select_by_visible_text("down")
    opened.one("#step").send_keys(Keys.HOME, Keys.ARROW_RIGHT)
    assert opened.one(share).get_attribute("data-share") == "1.000"


def test_the_edited_picture_turns_into_its_source(browser, tmp_path):
    opened = Page(browser, tmp_path, edited())
    Select(opened.one("#scale")).select_by_value("shared")
    source = opened.one(".ground img.source")
    assert source.value_of_css_property("opacity") == "0"
    before = alpha(opened, 0.2, 0.2, 1)
    opened.one("#mix").send_keys(Keys.END)
    assert opened.one("#mix").get_attribute("aria-valuetext") == "source"
    assert source.value_of_css_property("opacity") == "1"
    assert alpha(opened, 0.2, 0.2, 1) == alpha(opened, 0.2, 0.2, 0) > before
    opened.one("#blink").send_keys(Keys.ENTER)
    assert opened.one("#blink").get_attribute("aria-pressed") == "true"
    WebDriverWait(browser, 5, 0.05).until(lambda _: source.value_of_css_property("opacity") == "0")
    opened.one("#blink").send_keys(Keys.SPACE)
    assert opened.one("#blink").get_attribute("aria-pressed") == "false"


@pytest.mark.parametrize("width", [400, 1600])
def test_a_pair_fits_into_narrow_and_wide_windows(browser, tmp_path, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        opened = Page(browser, tmp_path, edited())
        tops = [stage.location["y"] for stage in opened.all(".stage")]
        assert (tops[0] == tops[1]) == (width == 1600)
        rights = [
            each.rect["x"] + each.rect["width"]
            for each in opened.all(".card, .stage, .controls > *, .taken li")
        ]
        assert max(rights) <= width
        assert opened.logs()[0] == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
