"""What a model attends to in a picture that exists: encode it, add noise, look once.

The picture here is drawn; with ``Image.open("photo.jpg")`` it is yours.

    python samples/photo.py            writes photo.png
"""

import numpy as np
from diffusers import DiffusionPipeline
from PIL import Image

from attncontrol import save, sprites
from attncontrol.analysis.edges import along_edges
from attncontrol.analysis.overlap import agreement
from attncontrol.analysis.segment import masks, strongest
from attncontrol.maps.draw import grid, overlay
from attncontrol.sprites.scenes import Thing, compose, render
from attncontrol.verbs.picture import record_picture

WORDS = ["cat", "frog"]
scene = compose((Thing("cat", "red"), Thing("frog", "blue")), np.random.default_rng(4))
photo, prompt = Image.fromarray(render(scene)[0]), "a red cat and a blue frog"

pipe = DiffusionPipeline.from_pretrained(sprites.path("sd"))
maps = record_picture(pipe, photo, prompt, WORDS, timestep=300.0)
save(maps, "photo.safetensors")  # attncontrol inspect photo.safetensors --open

seen = maps.pictures[0]  # what the model saw: of a large photo a smaller one
words = maps.mean()[0].permute(2, 0, 1)  # [word, height, width]
sharp = along_edges(words, np.asarray(seen))
found = masks(sharp, np.asarray(seen), method=strongest)
rows = {
    "attended to": [overlay(seen, word) for word in words],
    "along edges": [overlay(seen, word) for word in sharp],
    "mask": [Image.fromarray(mask.numpy()).convert("RGB") for mask in found],
}
grid(rows, WORDS, title=prompt).save("photo.png")

every = record_picture(pipe, photo, prompt, timestep=300.0)  # of all tokens
for of in agreement(every)[0]:
    print(f"{of.modifier}: {of.own:.2f} with {of.noun}, at most {of.other:.2f} with another noun")
