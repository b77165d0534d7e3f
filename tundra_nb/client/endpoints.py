"""Turns functions of the API table into methods of the clients, once blocking and once awaited.

`Client.calls = blocking(api.calls)` and `AsyncClient.calls = awaited(api.calls)`: signature, help text and types come
from the one function; the surface it is read from says how its calls are carried.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeVar, overload

from .call import Step

T = TypeVar("T")
P = ParamSpec("P")


class Blocking(Protocol):
    """A surface whose methods return when the answer is there."""

    def _do(self, step: Step[T]) -> T: ...


class Awaiting(Protocol):
    """A surface whose methods are awaited."""

    async def _do(self, step: Step[T]) -> T: ...


class blocking(Generic[P, T]):  # noqa: N801 - used like a decorator
    """A function of the table as a blocking method."""

    def __init__(self, function: Callable[P, Step[T]]) -> None:
        self.function = function

    @overload
    def __get__(self, surface: None, owner: Any) -> Self: ...
    @overload
    def __get__(self, surface: Blocking, owner: Any) -> Callable[P, T]: ...
    def __get__(self, surface: Blocking | None, owner: Any) -> Self | Callable[P, T]:
        if surface is None:
            return self
        function, do = self.function, surface._do  # noqa: SLF001 - the descriptor is part of the surface

        @functools.wraps(function)
        def method(*args: P.args, **kwargs: P.kwargs) -> T:
            return do(function(*args, **kwargs))

        return method


class awaited(Generic[P, T]):  # noqa: N801 - used like a decorator
    """A function of the table as an awaited method."""

    def __init__(self, function: Callable[P, Step[T]]) -> None:
        self.function = function

    @overload
    def __get__(self, surface: None, owner: Any) -> Self: ...
    @overload
    def __get__(self, surface: Awaiting, owner: Any) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, surface: Awaiting | None, owner: Any) -> Self | Callable[P, Awaitable[T]]:
        if surface is None:
            return self
        function, do = self.function, surface._do  # noqa: SLF001 - the descriptor is part of the surface

        @functools.wraps(function)
        async def method(*args: P.args, **kwargs: P.kwargs) -> T:
            return await do(function(*args, **kwargs))

        return method
