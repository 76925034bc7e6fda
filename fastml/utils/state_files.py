"""States of models in files: NumPy's npz, without pickle.

A file has the arrays of a model, and one more with a text in JSON: what the model is, its parameters, its fitted
attributes, and where in these the arrays belong. Nothing in it is ever executed, so that files from others are safe to
load.

A model that inherits `StateFiles` has `save` and `load`. It names what else than plain values its attributes hold: the
classes in `_records`, named tuples or dataclasses, and in `_state_attributes` the attributes beside the public ones.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from .files import replacing

__all__ = ["FORMAT", "StateFiles"]

#: Names of records, of their fields and of attributes in files of earlier versions, and what they are now.
_FORMER_NAMES = {
    "Course": "Checkpoint", "Resumable": "FitCheckpoint", "course": "checkpoint", "_resumable": "_checkpoint"
}  # fmt: skip

#: Number of the format; a file with a higher one is from a later version. Format 1 had the former names.
FORMAT = 2

_TITLE = "state of a fastml model"

#: The array with the text.
_TEXT = "model"

#: What the text has.
_PARTS = {"title", "format", "version", "class", "parameters", "attributes"}

#: Kinds of arrays that need no pickle: numbers and texts.
_KINDS = "biufcSU"


class StateFiles:
    """What gives a model `save` and `load`."""

    _state_attributes: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def _records(cls) -> tuple[type, ...]:
        """Return the classes of records among the attributes."""
        return ()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted model to a file, from which `load` brings it back with the same bits.

        Parameters
        ----------
        path : str or path-like
            The file, in NumPy's npz format, without pickle. One that is there is replaced when the new one is complete,
            which has the same mode and group, and the same owner if root saves; a link stays, and the file that it
            leads to is replaced. Several threads and processes may save to one path at the same time: the last one's
            file stays.

        Raises
        ------
        TypeError
            If a parameter or attribute is something else than numbers, texts, arrays, None, and tuples, lists and
            dictionaries of them: a function, say.
        FileExistsError
            If `path` is there and is no regular file: a folder, say.
        """
        check_is_fitted(self)
        writer = _Writer(self._records())
        learned = {name: value for name, value in vars(self).items() if self._is_learned(name)}
        content = {
            "title": _TITLE,
            "format": FORMAT,
            "version": _version(),
            "class": type(self).__name__,
            "parameters": writer.named(self.get_params(deep=False), "parameter"),  # type: ignore[attr-defined]
            "attributes": writer.named(learned, "attribute"),
        }
        text = np.frombuffer(json.dumps(content).encode(), np.uint8)
        with replacing(Path(path)) as stream:
            arrays: dict[str, Any] = {_TEXT: text} | writer.arrays
            np.savez(stream, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return the model that `save` wrote to a file.

        Parameters
        ----------
        path : str or path-like
            The file. Nothing in it is executed, and its arrays take no more memory than it has bytes. Whether its
            numbers make sense is not checked: a model from an altered file may raise any error when it is used.

        Returns
        -------
        model
            With parameters, fitted attributes, and all that `partial_fit` and ``fit(..., resume=True)`` need.

        Raises
        ------
        ValueError
            If it is no such file or a damaged one, of another class of models, or from a later version of the format.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> from fastml import MLPRegressor
        >>> X, y = [[0.0], [1.0], [2.0], [3.0]], [1.0, 3.0, 5.0, 7.0]
        >>> model = MLPRegressor(hidden_layer_sizes=(3,), max_iter=2, tol=None, random_state=0).fit(X, y)
        >>> file = Path(tempfile.mkdtemp()) / "model.npz"
        >>> model.save(file)
        >>> bool((MLPRegressor.load(file).predict(X) == model.predict(X)).all())
        True
        """
        path = Path(path)
        content, arrays = _read(path)
        if content["format"] > FORMAT:
            raise ValueError(
                f"{path} has format {content['format']}, of fastml {content['version']}; fastml {_version()} reads "
                f"formats up to {FORMAT}"
            )
        kind = content["class"]
        if kind != cls.__name__:
            raise ValueError(f"{path} is of another class: {kind}.load reads it, {cls.__name__}.load does not")
        reader = _Reader(cls._records(), arrays, path)
        parameters, learned = reader.named(content["parameters"]), reader.named(content["attributes"])
        model = cls()
        unknown = parameters.keys() - model.get_params(deep=False).keys()  # type: ignore[attr-defined]
        unknown |= {name for name in learned if not cls._is_learned(name)}
        if unknown:
            raise ValueError(f"{path} has what a {cls.__name__} has not: {', '.join(sorted(unknown))}")
        model.set_params(**parameters)  # type: ignore[attr-defined]
        vars(model).update(learned)
        return model

    @classmethod
    def _is_learned(cls, name: str) -> bool:
        return name in cls._state_attributes or (name.endswith("_") and not name.startswith("_"))


def _version() -> str:
    """Return the version of the package that all this is part of: it stands above, and is there by now."""
    return str(sys.modules[__name__.partition(".")[0]].__version__)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the text of a file, as far as it is known to be there, and the arrays."""
    with path.open("rb") as stream:
        # A damaged file can fail in nearly any way; all of them mean the same to the caller.
        try:
            with np.load(stream, allow_pickle=False) as file:
                _check_members(file.zip.infolist(), os.fstat(stream.fileno()).st_size)
                arrays = {name: file[name] for name in file.files}
            content: dict[str, Any] = json.loads(arrays.pop(_TEXT).tobytes())
            whole = content["title"] == _TITLE and isinstance(content["format"], int) and {*content} >= _PARTS
        except Exception as error:
            raise ValueError(f"{path} is no {_TITLE}, or a damaged one ({error!r})") from error
    if not whole:
        raise ValueError(f"{path} is no {_TITLE}")
    return content, arrays


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    """Refuse what would take more memory than the file has bytes; `save` writes nothing of the kind."""
    packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise ValueError(f"{packed[0]} is compressed, which save never does")
    total = sum(member.file_size for member in members)
    if total > size:
        raise ValueError(f"its arrays have {total:,} bytes, the file {size:,}")


class _Writer:
    """Turns values into what JSON holds, and collects their arrays."""

    def __init__(self, records: tuple[type, ...]) -> None:
        self.arrays: dict[str, NDArray[Any]] = {}
        self._names: dict[int, str] = {}
        self._records = records

    def named(self, values: dict[str, Any], kind: str) -> dict[str, Any]:
        """Turn values with names."""
        return {name: self._encoded(value, f"{kind} {name}") for name, value in values.items()}

    def _encoded(self, value: Any, name: str) -> Any:
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, np.ndarray):
            return self._array(value, name)
        if isinstance(value, dict):
            pairs = [[self._encoded(part, name) for part in pair] for pair in value.items()]
            return {"dict": pairs}
        if isinstance(value, self._records):
            fields = {field: self._encoded(getattr(value, field), name) for field in _fields(type(value))}
            return {"record": type(value).__name__, "fields": fields}
        if type(value) in (list, tuple):
            return {type(value).__name__: [self._encoded(part, name) for part in value]}
        raise TypeError(
            f"{name} is or has {value!r} ({type(value).__name__}); a file holds numbers, texts, arrays, None, and "
            "tuples, lists and dictionaries of them"
        )

    def _array(self, value: NDArray[Any], name: str) -> dict[str, Any]:
        if value.dtype.kind == "O" and all(isinstance(item, str) for item in value.flat):
            return {"strings": value.ravel().tolist(), "shape": list(value.shape)}
        if value.dtype.kind not in _KINDS:
            raise TypeError(f"{name} is an array of {value.dtype}; a file holds arrays of numbers and texts")
        if id(value) not in self._names:  # some are in a model twice
            self._names[id(value)] = f"array_{len(self.arrays)}"
            self.arrays[self._names[id(value)]] = value
        return {"array": self._names[id(value)]}


class _Reader:
    """Turns what `_Writer` made back into values."""

    def __init__(self, records: tuple[type, ...], arrays: dict[str, NDArray[Any]], path: Path) -> None:
        self._arrays, self._path = arrays, path
        self._records = {record.__name__: record for record in records}

    def named(self, values: dict[str, Any]) -> dict[str, Any]:
        """Turn values with names back."""
        try:
            return {_present(name): self._decoded(value) for name, value in values.items()}
        except Exception as error:
            raise ValueError(f"{self._path} is a damaged {_TITLE} ({error!r})") from error

    def _decoded(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if "array" in value:
            return self._arrays[value["array"]]
        if "strings" in value:
            array = np.empty(len(value["strings"]), object)
            array[:] = value["strings"]
            return array.reshape(value["shape"])
        if "record" in value:
            record = self._records[_present(value["record"])]
            return record(**{_present(name): self._decoded(part) for name, part in value["fields"].items()})
        if "dict" in value:
            return {self._decoded(key): self._decoded(part) for key, part in value["dict"]}
        if "list" in value:
            return [self._decoded(part) for part in value["list"]]
        return tuple(self._decoded(part) for part in value["tuple"])


def _present(name: str) -> str:
    """Return the present name of what may have a former one."""
    return _FORMER_NAMES.get(name, name)


def _fields(record: type) -> tuple[str, ...]:
    if dataclasses.is_dataclass(record):
        return tuple(field.name for field in dataclasses.fields(record))
    fields: tuple[str, ...] = record._fields  # type: ignore[attr-defined]
    return fields
