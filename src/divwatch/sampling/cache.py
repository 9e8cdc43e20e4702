"""Room for keys and values made ahead: transformers' cache copies all of them at every token, this one every CHUNK tokens.

Profiled on a CPU (13 M parameters, 64 rows of 364 tokens), that copying was four fifths of a look.
"""

from __future__ import annotations

from typing import Any

from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionCacheLayerMixin

CHUNK = 64


class _Roomy:
    """Mixed into a dynamic layer: `keys` and `values` are views of larger tensors, into which new tokens are written."""

    keys: Any
    values: Any
    _all_keys: Any
    _all_values: Any
    _start: int
    _end: int

    def append(self, keys: Any, values: Any, window: int | None) -> tuple[Any, Any]:
        """Writes new states behind the last `window` ones (None: all) and returns both together."""
        new = keys.shape[-2]
        if self._room < new:
            self._make_room(max(CHUNK, new))
        start, end = self._start, self._end + new
        if window is not None:
            start = max(start, self._end - window)
        self._all_keys[:, :, self._end : end] = keys
        self._all_values[:, :, self._end : end] = values
        self._end = end
        full = self._all_keys[:, :, start:end], self._all_values[:, :, start:end]
        self._start = start if window is None else max(start, end - window)
        self._view()
        return full

    @property
    def _room(self) -> int:
        return self._all_keys.shape[2] - self._end

    def adopt(self, rows: Any) -> None:
        """Takes the layer's states over, those of `rows` [n], with room behind them."""
        self._start, self._end = 0, self.keys.shape[2]
        self._all_keys, self._all_values = self.keys, self.values
        self._make_room(CHUNK, rows)

    def _make_room(self, room: int, rows: Any = None) -> None:
        self._all_keys, self._all_values = (
            self._moved(states, room, rows) for states in (self._all_keys, self._all_values)
        )
        self._start, self._end = 0, self._end - self._start
        self._view()

    def _moved(self, states: Any, room: int, rows: Any) -> Any:
        states_in_use = states[:, :, self._start : self._end]
        count = states_in_use.shape[0] if rows is None else len(rows)
        moved = states_in_use.new_empty(
            (count, states_in_use.shape[1], states_in_use.shape[2] + room, states_in_use.shape[3])
        )
        moved[:, :, : states_in_use.shape[2]] = states_in_use if rows is None else states_in_use[rows]
        return moved

    def _view(self) -> None:
        self.keys = self._all_keys[:, :, self._start : self._end]
        self.values = self._all_values[:, :, self._start : self._end]

    def batch_select_indices(self, indices: Any) -> None:
        self._all_keys, self._all_values = self._all_keys[indices], self._all_values[indices]
        self._view()


class RoomyLayer(_Roomy, DynamicLayer):
    """A layer that attends to everything."""

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return self.append(key_states, value_states, None)


class RoomyWindowLayer(_Roomy, DynamicSlidingWindowLayer):
    """A layer that attends to a window: it keeps one token less than the window, as transformers' own does."""

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        self.cumulative_length += key_states.shape[-2]
        return self.append(key_states, value_states, self.sliding_window - 1)


ROOMY: dict[type, type] = {DynamicLayer: RoomyLayer, DynamicSlidingWindowLayer: RoomyWindowLayer}


def give_room(cache: Any, rows: Any) -> None:
    """Keeps `rows` [n] of a filled DynamicCache, a row as often as it is named, and gives its plain layers room."""
    for i, layer in enumerate(cache.layers):
        roomy = ROOMY.get(type(layer))
        if roomy is None or layer.keys is None or layer.keys.dim() != 4:
            _select(layer, rows)
            continue
        layer_with_room: Any = object.__new__(roomy)
        layer_with_room.__dict__.update(layer.__dict__)
        layer_with_room.adopt(rows)
        cache.layers[i] = layer_with_room


def select_rows(cache: Any, rows: Any) -> None:
    """Keeps `rows` [n] of a filled cache whose layers `known.check_filled` has accepted."""
    for layer in cache.layers:
        _select(layer, rows)


def _select(layer: Any, rows: Any) -> None:
    """transformers selects rows of keys and values; states of linear attention it only reorders, to as many rows."""
    if isinstance(layer, LinearAttentionCacheLayerMixin):
        for states in (layer.conv_states, layer.recurrent_states):
            for index, state in states.items():
                if state is not None:
                    states[index] = state.index_select(0, rows.to(state.device))
    if isinstance(layer, DynamicLayer) and layer.keys is not None:
        layer.batch_select_indices(rows)
