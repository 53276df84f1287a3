"""Distances of pictures pixel by pixel, in float64, and masks of runs pixel by pixel."""

import math

import numpy as np


def similarity(one, other):
    """Wang, Bovik, Sheikh, Simoncelli 2004, "Image quality assessment: from error visibility to
    structural similarity", equation 13, of gray pictures [height width] in 0 .. 1: an 11 x 11
    circular-symmetric Gaussian of 1.5 pixels with unit sum, K1 = 0.01, K2 = 0.03, L = 1. Of every
    pixel whose window lies in the picture [height - 10 width - 10]."""
    weights = [
        [math.exp(-(x * x + y * y) / (2 * 1.5**2)) for x in range(-5, 6)] for y in range(-5, 6)
    ]
    total = sum(map(sum, weights))
    height, width = one.shape
    found = np.zeros((height - 10, width - 10))
    for top in range(height - 10):
        for left in range(width - 10):
            sums = [0.0] * 5
            for y in range(11):
                for x in range(11):
                    a, b = float(one[top + y, left + x]), float(other[top + y, left + x])
                    for i, value in enumerate((a, b, a * a, b * b, a * b)):
                        sums[i] += weights[y][x] / total * value
            a, b, aa, bb, ab = sums
            c1, c2 = 0.01**2, 0.03**2
            found[top, left] = ((2 * a * b + c1) * (2 * (ab - a * b) + c2)) / (
                (a * a + b * b + c1) * (aa - a * a + bb - b * b + c2)
            )
    return found


def mean_square(one, other, pixels):
    """Of colours in 0 .. 1, over (row, column)."""
    squares = [
        ((int(one[y, x, c]) - int(other[y, x, c])) / 255) ** 2 for y, x in pixels for c in range(3)
    ]
    return math.fsum(squares) / len(squares)


def runs(mask):
    """The list [start, length, ...] of a mask, row after row."""
    found, flat = [], [bool(value) for row in mask for value in row]
    for place, value in enumerate(flat):
        if value and (not place or not flat[place - 1]):
            found += [place, 0]
        if value:
            found[-1] += 1
    return found
