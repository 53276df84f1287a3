"""Axis words of the package and the tensor types made of them.

``batch`` images, ``heads`` attention heads, ``query``/``key`` sequence positions, ``dim`` width of
one head, ``frames``/``height``/``width`` the attention grid in row-major order (frames: videos
only), ``token`` text positions, ``channel`` latent channels.
"""

from jaxtyping import Bool, Float
from torch import Tensor

TokenMaps = Float[Tensor, "batch height width token"]
Means = Float[Tensor, "batch *frames height width token"]
Recorded = Float[Tensor, "batch branch step heads *frames height width token"]
SpatialMaps = Float[Tensor, "height width token"]
LayerMaps = Float[Tensor, "heads height width token"]
HeadMaps = Float[Tensor, "many height width"]
CellMasks = Bool[Tensor, "many height width"]
CellMask = Bool[Tensor, "height width"]
Area = Bool[Tensor, "rows columns"]
PixelMap = Float[Tensor, "height width"]
SelfMap = Float[Tensor, "height width key_height key_width"]
WordMap = Float[Tensor, "batch *frames height width"]
WordMaps = Float[Tensor, "word height width"]
ResizedWords = Float[Tensor, "word rows columns"]
KeptTokens = Bool[Tensor, "batch token"]
Sequences = Float[Tensor, "batch sequence sequence"]
Losses = Float[Tensor, " batch"]
