"""The suite ``edits`` of ``attncontrol bench``: pictures edited from a source, with an exact judge.

A source shows "a red cat and a frog"; a method makes of it, by ``kind``,

recolour   "a blue cat and a frog"
swap       "a red dog and a frog", or "a red cat and a dog"
add        "a red cat and a frog" from "a red cat"
remove     "a frog", or "a red cat"
move       the same with one thing 32 pixels further on
regions    "a red cat and a blue frog" with a box for each, without a source
style      "a frog" in the colour and on the background of "a red cat", from other noise

Measures per picture, of what the scorer finds; the *changing* thing is what one prompt has and the
other has not, the *rest* what both have:

shown       what is new is there, in its colour; what is removed is not; what moved has an IoU of at
            least 0.5 with where it should be; both things of regions are there in their colours.
            Of style: the noun
kept        the rest is there in the colour that it has in the source, their IoU at least 0.5. Of
            style: the noun has the colour of the thing of the source
both        shown and kept
iou         recolour and swap: of the changing thing with the one whose place it takes; move: with
            the place where it should be; add and remove: of the rest with itself in the source;
            regions: of bounding boxes with their boxes, mean of both. 0 for what is missing
outside     PSNR in dB to the source where neither picture has the changing thing: outside of both
            of its boxes with a margin of 8 pixels, as masks of the scorer lack thin parts; true
            scenes have 58. At most 58.9, the error of rounding to 8 bits
other       PSNR in dB to the source of the rest, where it is in the source
tint        distance of the mean colours of the rest there, 1 for black and white
confidence  of the scorer in what it found of the prompt
"""
