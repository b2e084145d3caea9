"""What a loop keeps for its connections: handlers and data, under the numbers that C has. The end of a connection drops
them."""

from __future__ import annotations

from typing import Any

from .handler import Handler


class Data:
    """The data of sides. An object has one number, on however many sides it is."""

    def __init__(self) -> None:
        self._objects: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._counts: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, number: int | None) -> Any:
        """Returns the object with a number."""
        return self._objects.get(number) if number else None

    def number_of(self, data: Any) -> int:
        """Returns the number of an object; 0 if no side has it."""
        return self._numbers.get(id(data), 0)

    def add(self, data: Any, number: int) -> int:
        """Counts one more side with an object. Returns its number: this one, if it is new."""
        number = self._numbers.setdefault(id(data), number)
        self._objects[number] = data
        self._counts[number] = self._counts.get(number, 0) + 1
        return number

    def release(self, number: int | None) -> None:
        """Counts one side less."""
        if not number or number not in self._counts:
            return
        self._counts[number] -= 1
        if self._counts[number] == 0:
            del self._counts[number], self._numbers[id(self._objects.pop(number))]

    def clear(self) -> None:
        """Forgets all."""
        for table in (self._objects, self._numbers, self._counts):
            table.clear()


class Kept:
    """A handler that is kept under a number."""

    __slots__ = ("_records", "number")

    def __init__(self, records: Records, number: int) -> None:
        self._records, self.number = records, number

    def belongs_to(self, connection: int) -> None:
        """Says whose end is its own."""
        self._records._of(connection).numbers.append(self.number)

    def forget(self) -> None:
        """Drops it."""
        self._records._by_number.pop(self.number, None)


class _OfConnection:
    __slots__ = ("handler", "numbers", "data")

    def __init__(self) -> None:
        self.handler: Handler | None = None
        self.numbers: list[int] = []
        self.data: dict[int, int] = {}


class Records:
    """The handlers and the numbers of the data of each connection."""

    def __init__(self) -> None:
        self._by_number: dict[int, Handler] = {}
        self._connections: dict[int, _OfConnection] = {}

    def __len__(self) -> int:
        return len(self._by_number) + len(self._connections)

    def keep(self, number: int, handler: Handler) -> Kept:
        """Keeps a handler under a number."""
        self._by_number[number] = handler
        return Kept(self, number)

    def by_number(self, number: int) -> Handler | None:
        """Returns the handler with a number."""
        return self._by_number.get(number)

    def of_connection(self, connection: int) -> Handler | None:
        """Returns the handler that the listener gave to a connection."""
        record = self._connections.get(connection)
        return record.handler if record is not None else None

    def set_handler(self, connection: int, handler: Handler) -> None:
        """Keeps the handler that the listener gives to a connection."""
        self._of(connection).handler = handler

    def set_data(self, connection: int, side: int, number: int | None, data: Data) -> None:
        """Keeps the number of the data of a side, in place of the present one."""
        numbers = self._of(connection).data
        data.release(numbers.pop(side, None))
        if number:
            numbers[side] = number

    def drop(self, connection: int, data: Data) -> None:
        """Drops what is kept for a connection."""
        record = self._connections.pop(connection, None)
        if record is not None:
            for number in record.numbers:
                self._by_number.pop(number, None)
            for number in record.data.values():
                data.release(number)

    def clear(self) -> None:
        """Forgets all."""
        self._by_number.clear()
        self._connections.clear()

    def _of(self, connection: int) -> _OfConnection:
        return self._connections.setdefault(connection, _OfConnection())
