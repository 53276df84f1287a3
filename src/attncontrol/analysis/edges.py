"""Maps that follow the edges of the picture: guided filter (He, Sun and Tang, ECCV 2010).

In every window w of the picture I, (2 r + 1) pixels wide, the map p is explained as a linear
function of the colours, and every pixel takes the mean of what its windows say:

    a_w = (cov_w(I) + epsilon)^-1 cov_w(I, p)        b_w = mean_w(p) - a_w . mean_w(I)
    q   = mean over the windows of the pixel of a . I + b

A map of a few cells so ends where the object ends, if its colours do; where the picture is flat it
stays a smooth map.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attncontrol.axes import ResizedWords, WordMaps
from attncontrol.checks.arguments import Positive, checked


@checked
def along_edges(
    maps: WordMaps, picture: np.ndarray, *, radius: Positive = 1.5, epsilon: Positive = 1e-3
) -> ResizedWords:
    """[word rows columns] of maps resized bilinearly to ``picture`` (rows, columns, 3) uint8,
    filtered, negative values cut.

    ``radius`` is r in cells of the maps; ``epsilon`` the variance of colours in 0 .. 1 below which
    a window counts as flat.
    """
    reach = max(1, round(radius * picture.shape[0] / maps.shape[1]))
    colors = torch.tensor(picture).permute(2, 0, 1).to(maps.device, torch.float64) / 255
    values = F.interpolate(
        maps[None].double(), picture.shape[:2], mode="bilinear", align_corners=False
    )[0]

    def mean(array: Tensor) -> Tensor:
        flat = array.reshape(1, -1, *picture.shape[:2])
        return F.avg_pool2d(flat, 2 * reach + 1, 1, reach, count_include_pad=False).view_as(array)

    middle, of_values = mean(colors), mean(values)
    spread = mean(colors[:, None] * colors) - middle[:, None] * middle  # [color color rows columns]
    shared = (
        mean(values[:, None] * colors) - of_values[:, None] * middle
    )  # [word color rows columns]
    matrices = spread.permute(2, 3, 0, 1) + epsilon * torch.eye(
        3, dtype=torch.float64, device=maps.device
    )
    slopes = torch.linalg.solve(matrices, shared.permute(2, 3, 1, 0)).permute(3, 2, 0, 1)
    rest = of_values - (slopes * middle).sum(1)
    return ((mean(slopes) * colors).sum(1) + mean(rest)).clamp(min=0).to(maps.dtype)
