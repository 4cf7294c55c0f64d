"""Splits an input of any length into requests, and names failed items by their place in the whole.

Pure and lazy: reads no further than the batch it is asked for, so an endless input is fine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from embedfleet.client.options import ClientConfig
from embedfleet.errors import EmbedfleetError, InvalidRequest

__all__ = ["Batch", "Item", "batches_of", "raise_first", "rebase", "split"]

# What a caller may pass as one item: text, or ids of the model's tokenizer.
Item = str | Sequence[int] | npt.NDArray[np.integer]

# A token id takes at most this many bytes on the wire (vocabularies stay below 2 ** 21).
TOKEN_ID_BYTES = 3

_INDEXED = re.compile(r"^(?P<name>\w+)\[(?P<index>\d+)\]")


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive items; the first one is number `start` of the whole input.

    An item is UTF-8, or a list of token ids.
    """

    start: int
    items: Sequence[bytes | list[int]]

    def texts(self, name: str) -> list[bytes]:
        """Give the items where only text will do; `name` is what the caller calls them."""
        for index, item in enumerate(self.items, self.start):
            if not isinstance(item, bytes):
                raise InvalidRequest(
                    f"{name}[{index}] is token ids; pass text (str).", field=f"{name}[{index}]"
                )
        return cast(list[bytes], list(self.items))


def split(
    items: Iterable[Item], max_items: int, max_bytes: int, name: str = "texts"
) -> Iterator[Batch]:
    """Group items in order, each group within both limits; an item over the limit goes alone."""
    if isinstance(items, str | bytes):
        raise InvalidRequest(f"{name} is one string; pass a list, such as [text].", field=name)
    start, group, size = 0, list[bytes | list[int]](), 0
    for index, item in enumerate(items):
        encoded = _encode(item, index)
        weight = len(encoded) * (TOKEN_ID_BYTES if isinstance(encoded, list) else 1)
        if group and (len(group) >= max_items or size + weight > max_bytes):
            yield Batch(start, group)
            start, group, size = index, [], 0
        group.append(encoded)
        size += weight
    if group:
        yield Batch(start, group)


def batches_of(items: Iterable[Item], name: str, config: ClientConfig) -> list[Batch]:
    """Split a whole input; an empty one is refused by the name that the caller knows."""
    batches = list(split(items, config.max_batch_items, config.max_batch_bytes, name))
    if not batches:
        raise InvalidRequest(f"{name} is empty; pass at least one.", field=name)
    return batches


def rebase(error: EmbedfleetError, start: int) -> EmbedfleetError:
    """Name an item by its place in the whole input instead of its place in the request."""
    match = _INDEXED.match(error.field)
    if match is None or start == 0:
        return error
    before = match.group()
    after = f"{match['name']}[{int(match['index']) + start}]"
    return type(error)(
        error.message.replace(before, after),
        field=after + error.field[match.end() :],
        retry_after_seconds=error.retry_after_seconds,
    )


def raise_first(errors: Mapping[int, EmbedfleetError], name: str) -> None:
    """Raise the first item's error, if there is any, saying which item it was.

    Args:
        errors: By index in the whole input.
        name: What the caller calls the items, such as `documents`.
    """
    if not errors:
        return
    index = min(errors)
    error = errors[index]
    message = error.message
    if f"[{index}]" not in message:
        message = f"{name}[{index}]: {message}"
    if len(errors) > 1:
        message += f" ({len(errors) - 1} more failed; on_item_error='keep' returns the others.)"
    raise type(error)(message, field=error.field or f"{name}[{index}]")


def _encode(item: Item, index: int) -> bytes | list[int]:
    if isinstance(item, str):
        # A lone surrogate has no UTF-8: the server refuses that item and answers its neighbours.
        return item.encode("utf-8", "surrogatepass")
    if not isinstance(item, Sequence | np.ndarray) or isinstance(item, bytes | bytearray):
        raise InvalidRequest(
            f"items[{index}] is {type(item).__name__}; pass text (str) or token ids (list of int).",
            field=f"items[{index}]",
        )
    try:
        ids = np.asarray(item)
    except ValueError:
        # Rows of unequal lengths make no array; neither do they make ids.
        ids = np.empty((1, 1))
    if ids.size == 0:
        return []
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= 2**32:
        raise InvalidRequest(
            f"items[{index}].token_ids is not a flat list of whole numbers from 0 to 2**32 - 1; "
            "pass the ids of the model's own tokenizer.",
            field=f"items[{index}].token_ids",
        )
    return cast(list[int], ids.tolist())
