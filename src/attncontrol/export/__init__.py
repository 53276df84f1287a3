"""Recordings as arrays, tables and pictures for other programs."""

from attncontrol.export.arrays import to_csv, to_dataframe, to_npz, to_xarray, to_zarr
from attncontrol.export.sheets import write_pictures

__all__ = ["to_csv", "to_dataframe", "to_npz", "to_xarray", "to_zarr", "write_pictures"]
