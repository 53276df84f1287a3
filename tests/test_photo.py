"""Photos as a model is shown them: their pixels, their size, and what refuses to be one."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from attncontrol.analysis.relevance import relevance_of_picture
from attncontrol.errors import SettingError, SizeError
from attncontrol.verbs.photo import fitted, longest_side, read, reduced
from attncontrol.verbs.picture import noised_call, record_picture, record_pictures


def quarters(height=64, width=96):
    """Red above, green below left, blue below right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, :, 0] = 255
    pixels[height // 2 :, : width // 2, 1] = 255
    pixels[height // 2 :, width // 2 :, 2] = 255
    return pixels


def test_exif_turns_the_picture(tmp_path):
    """A camera held upright writes the pixels lying on their side, and how to turn them."""
    turned = Image.fromarray(quarters()).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    turned.save(tmp_path / "photo.png", exif=exif)
    with Image.open(tmp_path / "photo.png") as photo:
        assert photo.size == (64, 96)
        assert np.array_equal(np.asarray(read(photo)), quarters())


def test_sixteen_bits_are_scaled(tmp_path):
    ramp = np.linspace(0, 65535, 64 * 96).reshape(64, 96).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "gray.png")
    expected = np.rint(ramp / 257).astype(np.uint8)
    with Image.open(tmp_path / "gray.png") as photo:
        assert photo.mode.startswith("I")
        assert np.array_equal(np.asarray(read(photo))[..., 1], expected)
    for order in ("<u2", ">u2"):
        assert np.array_equal(np.asarray(read(ramp.astype(order)))[..., 2], expected)
    wide = np.asarray(Image.fromarray(expected.astype(np.int32)), np.int32) * 257
    assert np.array_equal(np.asarray(read(Image.fromarray(wide)))[..., 0], expected)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "L", "1", "LA", "YCbCr", "HSV"])
def test_every_mode_becomes_rgb(mode):
    black_and_white = Image.fromarray(np.kron(np.eye(8, dtype=np.uint8) * 255, np.ones((8, 8)))
                                      .astype(np.uint8))  # fmt: skip
    found = np.asarray(read(black_and_white.convert("RGB").convert(mode)), int)
    assert found.shape == (64, 64, 3)
    assert np.abs(found - np.asarray(black_and_white, int)[..., None]).max() <= 2


def test_what_is_transparent_is_white():
    pixels = np.zeros((64, 96, 4), np.uint8)
    pixels[:, :48] = (10, 20, 30, 255)
    pixels[:, 48:] = (10, 20, 30, 0)
    for photo in (pixels, Image.fromarray(pixels)):
        found = np.asarray(read(photo))
        assert (found[:, :48] == (10, 20, 30)).all()
        assert (found[:, 48:] == 255).all()
    palette = Image.fromarray(pixels).quantize(4)  # transparency in the palette
    assert np.asarray(read(palette))[0, 90].tolist() == [255, 255, 255]


def test_arrays_of_other_types():
    pixels = quarters()
    assert np.array_equal(np.asarray(read(pixels / 255)), pixels)
    assert np.array_equal(np.asarray(read((pixels / 255).astype(np.float32))), pixels)
    assert np.array_equal(np.asarray(read(pixels[..., 0])), np.asarray(read(pixels[..., :1])))
    with pytest.raises(SettingError, match=r"not float64 in 0\.0 \.\. 255\.0"):
        read(pixels.astype(float))
    with pytest.raises(SettingError, match=r"not int64 in 0 \.\. 255"):
        read(pixels.astype(np.int64))
    with pytest.raises(SettingError, match=r"not \(3, 64, 96\)"):
        read(pixels.transpose(2, 0, 1))
    with pytest.raises(SettingError, match='of mode "F" is not known'):
        read(Image.fromarray(pixels[..., 0].astype(np.float32)))


def test_what_is_over_a_multiple_is_cropped_evenly():
    pixels = np.random.default_rng(0).integers(0, 256, (70, 101, 3), np.uint8)
    found = np.asarray(reduced(Image.fromarray(pixels), 1000, 16))
    assert np.array_equal(found, pixels[3:67, 2:98])
    assert reduced(Image.fromarray(pixels), 101, 16).size == (96, 64)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((4000, 4000), (128, 128)),
        ((4000, 3000), (128, 96)),
        ((3000, 4001), (96, 128)),
        ((2000, 3050), (80, 128)),  # 83.9 pixels
        ((5, 7), (16, 16)),
        ((2000, 100), (128, 16)),  # one patch is the least; the ends are cropped
    ],
)
def test_sizes(size, expected):
    assert reduced(Image.new("RGB", size), 128, 16).size == expected


def test_a_chosen_size_is_filled_from_the_middle(pipe):
    found = fitted(pipe, Image.fromarray(quarters(640, 960)), (64, 64))
    assert found.shape == (64, 64, 3)
    corners = [found[y, x].tolist() for y, x in ((4, 32), (60, 4), (60, 60))]
    assert corners == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert np.array_equal(fitted(pipe, quarters(), (64, 96)), quarters())
    with pytest.raises(SettingError, match=r"multiples of 16, such as \(64, 96\)"):
        fitted(pipe, quarters(), (60, 100))


def test_the_longest_side_is_the_models_own(pipe):
    assert longest_side(pipe) == 128
    told = SimpleNamespace(default_sample_size=64, transformer=None, vae_scale_factor=8)
    assert longest_side(told) == 512
    config = {"sample_size": [60, 90]}
    both = SimpleNamespace(transformer=SimpleNamespace(config=config), vae_scale_factor=8)
    assert longest_side(both) == 720
    silent = SimpleNamespace(transformer=SimpleNamespace(config={}), vae_scale_factor=8)
    assert longest_side(silent) == 1024


def test_a_photo_is_recorded_as_its_pixels(pipe):
    """A large photo, and the array that it comes to."""
    large = Image.fromarray(quarters()).resize((3000, 2000), Image.Resampling.NEAREST)
    options = {"timestep": 300.0, "seed": 2}
    maps = record_picture(pipe, large, "a cat", ["cat"], **options)
    assert maps.pictures[0].size == (128, 80)  # of 128 x 85
    again = record_picture(pipe, np.asarray(maps.pictures[0]), "a cat", ["cat"], **options)
    assert torch.equal(maps["cat"], again["cat"])
    assert maps["cat"].shape == (1, 10, 16)
    small = record_picture(pipe, large, "a cat", ["cat"], size=(32, 48), **options)
    assert small.pictures[0].size == (48, 32)
    assert small["cat"].shape == (1, 4, 6)
    same = record_picture(pipe, large, "a cat", ["cat"], height=32, width=48, **options)
    assert torch.equal(same["cat"], small["cat"])
    found = relevance_of_picture(pipe, large, "a cat", ["cat"], size=(32, 48), timestep=300.0)
    assert found.shape[1] * 3 == found.shape[2] * 2
    part = noised_call(pipe, [large], ["a cat"], **options)
    assert part.latents.shape == (1, 4, 10, 16)


def test_photos_of_one_batch_have_one_shape(pipe):
    two = [Image.new("RGB", (96, 64)), Image.new("RGB", (64, 96))]
    with pytest.raises(SettingError, match=r"not \[\(64, 96\), \(96, 64\)\]; choose one with size"):
        record_pictures(pipe, two, ["a cat", "a dog"], timestep=300.0)
    maps = record_pictures(pipe, two, ["a cat", "a dog"], timestep=300.0, size=(64, 64))
    assert [picture.size for picture in maps.pictures] == [(64, 64)] * 2


@pytest.mark.parametrize("direction", ["image->text", "image->image"])
def test_maps_that_are_too_large_are_refused_before_the_denoiser_runs(pipe, direction):
    photo, options = Image.new("RGB", (128, 64)), {"timestep": 300.0, "direction": direction}
    words = {"image->text": ["cat", "dog"], "image->image": None}[direction]
    maps = record_picture(pipe, photo, "a cat and a dog", words, **options)
    held = 4.0 * sum(layer.numel() for layer in maps.layers.values())
    runs = []
    pipe.unet.conv_in.register_forward_pre_hook(lambda *_: runs.append(1))
    record_picture(pipe, photo, "a cat and a dog", words, limit=held, **options)
    assert len(runs) == 1
    with pytest.raises(SizeError, match=r"drop keep=\.\.\., or raise limit="):
        record_picture(pipe, photo, "a cat and a dog", words, limit=held - 1, **options)
    assert len(runs) == 1
