"""The one door through which files of records come in: every file is opened here, and nothing of
it is used before it is checked."""

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor

from attncontrol.errors import RecordError, SettingError
from attncontrol.maps.recording import Shape
from attncontrol.maps.taken import names_in

if TYPE_CHECKING:
    from attncontrol.maps.schema import Header

DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.uint8: "U8"}


@dataclass(frozen=True)
class Kept:
    """What safetensors says of a tensor; its bytes are known to be there."""

    dtype: str
    shape: Shape

    @classmethod
    def of(cls, tensor: Tensor) -> "Kept":
        return cls(DTYPES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape))


@dataclass(frozen=True)
class Part:
    """One file of a record: its checked header and its tensors."""

    file: Path
    header: "Header"
    tensors: Mapping[str, Kept]

    def shape(self, layer: str) -> Shape | None:
        """None if the layer did not run."""
        found = self.tensors.get(f"maps/{layer}")
        return None if found is None else found.shape

    def layer(self, name: str) -> Tensor:
        """float32. Raises RecordError if it is not what was written."""
        with opened(self.file) as tensors:
            maps = self._read(tensors, f"maps/{name}").float()
            if self.header.encoding == "sqrt8":
                maps = (maps / 255).square_().mul_(self._read(tensors, f"scale/{name}"))
        return maps

    def pictures(self) -> tuple[Image.Image, ...]:
        if "pictures" not in self.tensors:
            return ()
        with opened(self.file) as tensors:
            found = self._read(tensors, "pictures")
        return tuple(map(Image.fromarray, found.numpy()))

    def taken(self) -> dict[str, Tensor]:
        """What images have of their sources."""
        with opened(self.file) as tensors:
            return {name: self._read(tensors, name) for name in names_in(self.tensors)}

    def _read(self, tensors: Any, name: str) -> Tensor:
        """The file may be another one than before."""
        if kept_in(tensors).get(name) != self.tensors[name]:
            raise RecordError(f"{self.file} is no longer what it was: {name} has changed")
        found: Tensor = tensors.get_tensor(name)
        if self.header.checksums.get(name, checksum(found)) != checksum(found):
            raise RecordError(f"{self.file} is damaged: the checksum of {name} does not fit it")
        return found


@contextmanager
def opened(
    file: Path, what: str = "an attention record", by: str = "attncontrol.save"
) -> Iterator[Any]:
    """Raises RecordError for what is no file of safetensors."""
    try:
        if not file.is_file():  # a pipe would be waited for
            found = "it is a folder" if file.is_dir() else "there is no such file"
            raise RecordError(f"{file} is not {what}: {found}")
        with safe_open(file, "pt") as tensors:
            yield tensors
    except OSError as error:
        raise RecordError(f"{file} is not {what} ({error}); write one with {by}") from error
    except SafetensorError as error:
        raise RecordError(
            f"{file} is not {what}: it is no file of safetensors, or not all of one; write one "
            f"with {by}"
        ) from error


def read(file: Path) -> Part:
    """Opens a file and checks it. No tensor is read."""
    with opened(file) as tensors:
        about, kept = tensors.metadata() or {}, kept_in(tensors)
    if "attncontrol" not in about:
        raise RecordError(
            f"{file} is not an attention record: it has no header of attncontrol; write one with "
            "attncontrol.save"
        )
    text = about["attncontrol"]
    header = require_fit(file, text, kept)
    if about.get("attncontrol.checksum", checksum_of(text)) != checksum_of(text):
        raise RecordError(f"{file} is damaged: the checksum of its header does not fit it")
    return Part(file, header, kept)


def read_pictures(file: Path, count: int) -> tuple[Image.Image, ...]:
    """Of a folder of version 0.2.0, whose pictures are beside its steps."""
    from attncontrol.maps import schema

    if not file.exists():
        return ()
    with opened(file) as tensors:
        schema.require_version((tensors.metadata() or {}).get("attncontrol", ""), file)
        kept = kept_in(tensors).get("pictures")
        if kept is None:
            raise RecordError(f"{file} holds no pictures")
        if wrong := schema.wrong_pictures(kept.dtype, kept.shape, count):
            raise RecordError(f"{file} holds no pictures of this record: {wrong}")
        return tuple(map(Image.fromarray, tensors.get_tensor("pictures").numpy()))


def kept_in(tensors: Any) -> dict[str, Kept]:
    names = tensors.keys()  # it is no mapping
    slices = {name: tensors.get_slice(name) for name in names}
    return {name: Kept(of.get_dtype(), tuple(of.get_shape())) for name, of in slices.items()}


def require_fit(file: Path, text: str, kept: Mapping[str, Kept]) -> "Header":
    """The header, if it and the tensors fit each other. Raises RecordError."""
    from attncontrol.maps import schema  # pydantic takes a third of a second

    header = schema.parsed(text, file)
    if wrong := schema.misfit(header, {name: (of.dtype, of.shape) for name, of in kept.items()}):
        raise RecordError(f"{file} is no attention record: {wrong}")
    return header


def checksum(tensor: Tensor) -> str:
    """CRC-32 of the type as safetensors names it, the shape, and the values as they are stored:
    "F16 2,1,4", then the bytes; 8 hexadecimal digits."""
    kept = Kept.of(tensor)
    start = zlib.crc32(f"{kept.dtype} {','.join(map(str, kept.shape))}".encode())
    values: np.ndarray = tensor.contiguous().flatten().view(torch.uint8).numpy()
    return f"{zlib.crc32(values.data, start):08x}"


def checksum_of(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def path_of(path: Any) -> Path:
    """Raises SettingError for what is no path."""
    if not isinstance(path, str | Path) or not str(path).strip() or "\0" in str(path):
        raise SettingError(f"{path!r} is no path of a file or folder; give a str or a Path")
    return Path(path)
