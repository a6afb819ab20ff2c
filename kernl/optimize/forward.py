"""What stands in the place of a model's forward."""

import functools
import itertools
import threading
from collections import Counter
from collections.abc import Hashable
from typing import Any

import torch

from kernl.optimize.changes import Watch
from kernl.optimize.copies import Shell, Twin
from kernl.optimize.engine import Call, Engine, Forward, build, build_padded, without_graph
from kernl.optimize.kept import Kept
from kernl.optimize.options import Options
from kernl.optimize.padding import Padded, Padding, padded_key
from kernl.optimize.traffic import PATIENCE, TRAFFIC
from kernl.runtime.runner import Arena, Row, Runner
from kernl.runtime.shelf import Shelf
from kernl.runtime.structure import UnknownValue, key_of_call

_MOST_SEEN = 4096
_BEGINNING = threading.RLock()
"""So that the first calls of a copy, from several threads, begin once."""
_BY_GRAPH = "by graph"
FIRST_SIGHT = "the first call of its shapes"


class OptimizedForward:
    """Runs a call by its engine; by the original where there is none, and counts why.

    A call of new shapes runs by the original at once. The second such call builds the engine.
    """

    def __init__(self, model: torch.nn.Module, options: Options) -> None:
        self._begin(model, options, model.forward)

    def _begin(self, model: torch.nn.Module, options: Options, original: Forward) -> None:
        self.original = original
        self.options = options
        self._model = model
        self._watch = Watch(model)
        self._first = _place_of_first_parameter(model)
        self._weights = self._weights_now()
        self._engines: Shelf[Engine] = Shelf(options.max_graphs)
        self._cuts: Shelf[Engine] = Shelf(_MOST_SEEN)
        self._seen: Shelf[bool] = Shelf(_MOST_SEEN)
        self._twins: dict[torch.dtype, Twin] = {}
        self._counting = threading.Lock()
        self._by_graph_so_far = itertools.count()  # counts on in one step, without a lock
        self._looks = 0
        self._by_pytorch_so_far: Counter[str] = Counter()
        self._device_type = self._weights[2].type
        self._arena = self._new_arena()
        folder = options.cache_dir
        self._kept = None if folder is None else Kept(folder, self._weights[2])
        lengths = options.padded_lengths
        self._padding = Padding(model, self.original, lengths) if lengths else None
        # transformers reads the parameters of forward to know what a model takes.
        functools.update_wrapper(self, self.original)

    def __reduce__(self) -> tuple[Any, ...]:
        """For a copy of the model, or a file of it: graphs stay behind, and are built anew."""
        return _asleep, (), (self._model, self.options, self.original)

    def __setstate__(self, state: tuple[torch.nn.Module, Options, Forward]) -> None:
        self._state = state  # the model in it may have no modules yet

    def __getattr__(self, name: str) -> Any:
        """Begin, where this is a copy that nobody asked anything yet."""
        copying = name in ("__deepcopy__", "__copy__")
        with _BEGINNING:
            state = None if copying else self.__dict__.pop("_state", None)
            if state is not None:
                self._begin(*state)
        return object.__getattribute__(self, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the model's forward returns.

        Its time is that of the host: each call by graph pays for what stands here.
        """
        reason = self._why_original()
        if reason:
            return self._by_original(reason, args, kwargs)
        dtype = self._dtype()
        tensors: list[torch.Tensor] = []
        try:
            key = key_of_call(args, kwargs, dtype, tensors)
        except UnknownValue as unknown:
            return self._by_original(unknown.seen, args, kwargs)
        engine = self._engines.get(key) or self._find(key)
        if engine is None:
            call, padded = Call(args, kwargs, tensors), self._padded(args, kwargs)
            sight = key if padded is None else padded_key(padded[1], dtype)
            if self._seen.get(sight) is None:
                self._seen.put(sight, True)
                return self._by_original(FIRST_SIGHT, args, kwargs)
            engine = self._engine(key, call, padded, dtype, PATIENCE)
        if engine is None:
            return self._by_original("other threads do not stop calling", args, kwargs)
        base = engine if engine.base is None else self._engines.get(engine.base)
        if engine.note or base is None or base.runner is None:
            return self._by_original(engine.note or "its graph has just gone", args, kwargs)
        return self._by_graph(engine, base.runner, tensors, dtype)

    def _by_graph(
        self, engine: Engine, runner: Runner, tensors: Row, dtype: torch.dtype | None
    ) -> Any:
        if dtype is not None:
            twin = self._twins.get(dtype)
            if twin is not None:
                twin.refresh()
        next(self._by_graph_so_far)
        row = tensors if engine.take is None else engine.take(tensors)
        # A replay reads no mode and touches no module. In somebody's capture there is none.
        if self._arena is not None and not torch._C._cuda_isCurrentStreamCapturing():
            return engine.rebuild(runner.replay(row))
        with torch.autocast(self._device_type, enabled=False), TRAFFIC.calling():
            return engine.rebuild(runner(row))

    @property
    def remarks(self) -> list[str]:
        """Of kinds of calls whose graphs are as they were written: what they take so, and else."""
        return [engine.remark for engine in self._engines.values() if engine.remark]

    @property
    def calls(self) -> Counter[str]:
        """How many calls went which way so far."""
        with self._counting:
            counts = Counter(self._by_pytorch_so_far)
            by_graph = next(self._by_graph_so_far) - self._looks  # a look counts on too
            self._looks += 1
        if by_graph:
            counts[_BY_GRAPH] = by_graph
        return counts

    def prepare(self, *args: Any, **kwargs: Any) -> Engine:
        """The engine for such a call, built now where there is none. Raises UnknownValue."""
        tensors: list[torch.Tensor] = []
        dtype = self._dtype()
        key = key_of_call(args, kwargs, dtype, tensors)
        padded = self._padded(args, kwargs)
        engine = self._engine(key, Call(args, kwargs, tensors), padded, dtype, None)
        assert engine is not None
        return engine

    def _find(self, key: Hashable) -> Engine | None:
        """The engine for a call; None where there is none, or the one behind it has gone."""
        engine = self._engines.get(key) or self._cuts.get(key)
        if engine is not None and engine.base is not None:
            return engine if self._engines.get(engine.base) else None
        return engine

    def _padded(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Padded, dict[str, Any]] | None:
        return None if self._padding is None else self._padding.of(args, kwargs)

    def _by_original(self, reason: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with self._counting:
            self._by_pytorch_so_far[f"by PyTorch: {reason}"] += 1
        with TRAFFIC.calling():
            return self.original(*args, **kwargs)

    def _why_original(self) -> str:
        if self._model.training:
            return "the model is in training mode"
        if torch.is_grad_enabled():
            return "gradients are recorded: call it inside torch.inference_mode()"
        if torch.compiler.is_compiling() and not TRAFFIC.traced_elsewhere():
            return "it is being traced or compiled"
        if self._moved():
            self._forget()
        return "" if self._watch.quiet() else self._watch.look(self._forget)

    def _moved(self) -> bool:
        """Whether the weights were moved or cast, as `model.to` does to all of them."""
        # Found anew in each call, as it may be another object; without a walk over the model.
        parameters, name = self._first
        first = parameters.get(name)
        if first is None:  # there is something else in its place
            return True
        return first.data_ptr() != self._weights[0] or first.dtype is not self._weights[1]

    def _weights_now(self) -> tuple[int, torch.dtype, torch.device]:
        parameters, name = self._first
        first = parameters[name]
        return first.data_ptr(), first.dtype, first.device

    def _forget(self) -> None:
        """Graphs read weights where they were: build anew."""
        self._first = _place_of_first_parameter(self._model)
        self._weights = self._weights_now()
        self._engines.clear()
        self._cuts.clear()
        self._seen.clear()
        self._twins.clear()
        self._device_type = self._weights[2].type
        self._arena = self._new_arena()

    def _new_arena(self) -> Arena | None:
        on_gpu = self._device_type == "cuda" and self.options.cuda_graphs
        return Arena(self._weights[2]) if on_gpu else None

    def _dtype(self) -> torch.dtype | None:
        """The half precision that is asked for, by autocast or by option, of float32 weights."""
        if self._weights[1] is not torch.float32:
            return None
        if torch.is_autocast_enabled(self._device_type):
            return torch.get_autocast_dtype(self._device_type)
        return self.options.dtype

    def _engine(
        self,
        key: Hashable,
        call: Call,
        padded: tuple[Padded, dict[str, Any]] | None,
        dtype: torch.dtype | None,
        patience: float | None,
    ) -> Engine | None:
        """Build it; None where other threads did not stop calling for so many seconds."""
        with TRAFFIC.tracing(patience) as free:
            engine = self._find(key)
            if engine is not None or not free:
                return engine
            if padded is None:
                return self._build(key, call, dtype)
            how, arguments = padded
            base_key = padded_key(arguments, dtype)
            base = self._engines.get(base_key)
            if base is None:
                base = self._build(base_key, Call((), arguments, how.row(call.tensors)), dtype)
            original = functools.partial(self.original, *call.args, **call.kwargs)
            engine = build_padded(base, base_key, how, call, self.options, original)
            self._cuts.put(key, engine)
            return engine

    def _build(self, key: Hashable, call: Call, dtype: torch.dtype | None) -> Engine:
        original = functools.partial(self.original, *call.args, **call.kwargs)
        try:
            shell = self._shell(dtype)
        except Exception as error:  # a model that cannot be copied still runs
            engine = without_graph(error)
        else:
            engine = build(shell, call, self.options, dtype, original, self._arena, self._kept)
        self._engines.put(key, engine)
        self._seen.put(key, True)
        self._weights = self._weights_now()  # packing may have moved them
        return engine

    def _shell(self, dtype: torch.dtype | None) -> Shell:
        """The copy of the model that is traced."""
        if dtype is None:
            return Shell(self._model, self.original)
        twin = self._twins.get(dtype)
        if twin is None:
            twin = self._twins[dtype] = Twin(self._model, self.original, dtype)
        twin.refresh()
        return twin


def _asleep() -> OptimizedForward:
    return OptimizedForward.__new__(OptimizedForward)


def _place_of_first_parameter(model: torch.nn.Module) -> tuple[dict[str, Any], str]:
    """The dict of the module that holds it, and its name there."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                return module._parameters, name
    raise AssertionError("a PreTrainedModel has parameters")
