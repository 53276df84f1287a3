"""Axis words of the package and the tensor types made of them.

``batch`` images, ``heads`` attention heads, ``query``/``key`` sequence positions, ``dim`` width of
one head, ``frames``/``height``/``width`` the attention grid in row-major order (frames: videos
only), ``token`` text positions, ``channel`` latent channels.
"""

from jaxtyping import Bool, Float
from torch import Tensor

Query = Float[Tensor, "batch heads query dim"]
Key = Float[Tensor, "batch heads key dim"]
Probabilities = Float[Tensor, "batch heads query key"]
TokenMaps = Float[Tensor, "batch height width token"]
Means = Float[Tensor, "batch *frames height width token"]
Recorded = Float[Tensor, "batch branch step heads *frames height width token"]
Resized = Float[Tensor, "batch new_height new_width token"]
SpatialMaps = Float[Tensor, "height width token"]
Distances = Float[Tensor, "token token"]
LayerMaps = Float[Tensor, "heads height width token"]
HeadMaps = Float[Tensor, "many height width"]
CellMasks = Bool[Tensor, "many height width"]
CellMask = Bool[Tensor, "height width"]
Region = Bool[Tensor, "rows columns"]
PixelMap = Float[Tensor, "height width"]
PictureMaps = Float[Tensor, "batch height width key_height key_width"]
SelfMap = Float[Tensor, "height width key_height key_width"]
WordMap = Float[Tensor, "batch *frames height width"]
WordMaps = Float[Tensor, "word height width"]
Places = Float[Tensor, "word xy"]
Middles = Float[Tensor, "height width xy"]
WordMeans = Float[Tensor, "batch *frames height width word"]
ResizedWords = Float[Tensor, "word rows columns"]
WordMasks = Bool[Tensor, "word rows columns"]
CellOutputs = Float[Tensor, "batch heads cell dim"]
PieceOutputs = Float[Tensor, "batch heads piece dim"]
ConceptProducts = Float[Tensor, "batch concept cell"]
ConceptMaps = Float[Tensor, "batch concept height width"]
HeadQueries = Float[Tensor, "query dim"]
HeadKeys = Float[Tensor, "key dim"]
PerHead = Float[Tensor, " many"]
Squares = Float[Tensor, "many cell cell"]
Spectra = Float[Tensor, "many cell"]
WordPairs = Float[Tensor, "word word"]
KeptTokens = Bool[Tensor, "batch token"]
LayerMass = Float[Tensor, "layer batch token"]
Reached = Float[Tensor, "query group"]
Relevances = Float[Tensor, "batch query key"]
Sequences = Float[Tensor, "batch sequence sequence"]
HeadRows = Float[Tensor, "batch heads query key"]
Losses = Float[Tensor, " batch"]
Mask = Float[Tensor, "*mask #query key"] | Bool[Tensor, "*mask #query key"]
