"""Edit a picture that exists: invert it, retrace it as the source of an edit.

The picture here is drawn; with ``Image.open("photo.jpg")`` it is yours.

    python samples/real_picture.py     writes real_picture.png
"""

import numpy as np
from diffusers import DiffusionPipeline
from PIL import Image

from attncontrol import On, edit, invert, retrace, sprites
from attncontrol.edits import LocalBlend, Replace
from attncontrol.maps.draw import grid
from attncontrol.sprites.scenes import Thing, compose, render

scene = compose((Thing("cat", "red"), Thing("frog", "blue")), np.random.default_rng(4))
photo, prompt = Image.fromarray(render(scene)[0]), "a red cat and a blue frog"
changes = ["a green cat and a blue frog", "a red cat and a yellow frog"]

pipe, call = DiffusionPipeline.from_pretrained(sprites.path("sd")), sprites.call("sd")
trajectory = invert(pipe, photo, prompt, num_inference_steps=call["num_inference_steps"])
trajectory.save("real_picture.safetensors")  # Trajectory.load reads it

with retrace(pipe, trajectory), edit(pipe, [On(LocalBlend()), On(Replace())]):
    pictures = pipe([prompt, *changes], **call).images

columns = ["picture", "retraced", *changes]
grid({"": [photo, *pictures]}, columns).save("real_picture.png")
