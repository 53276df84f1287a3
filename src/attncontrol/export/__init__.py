"""Recordings as arrays, tables and pictures for other programs."""

from attncontrol.listing import namespace

_ARRAYS = ("to_csv", "to_dataframe", "to_npz", "to_xarray", "to_zarr")
__all__, __getattr__, __dir__ = namespace(
    __name__, __path__[0], {**dict.fromkeys(_ARRAYS, "arrays"), "write_pictures": "sheets"}
)
