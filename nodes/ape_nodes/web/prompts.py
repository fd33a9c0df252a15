"""The prompts as the page edits them: ids, revisions, and what became of each.

An edit names the revision that it was made from. One that comes after somebody else's is refused
with the present list, so nobody's change is lost in silence. An accepted edit is seen by all at
once; the model takes it afterwards, while images go on.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from ape_nodes.web.protocol import MAX_TEXT_CHARS, PromptOp
from ape_stream.errors import PromptError, UsageError
from ape_stream.tables import read_table
from ape_stream.types import Prompt, PromptSet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ape_stream.values.prompts import PromptKind

__all__ = ["MAX_PROMPTS", "ConflictError", "PromptList", "one_line"]

MAX_PROMPTS: Final = 500
"""Prompts of a page at most."""
_COLOR: Final = re.compile(r"#[0-9a-fA-F]{6}")
_REMEMBERED: Final = 64
_log = logging.getLogger("ape_stream")


class ConflictError(UsageError):
    """Somebody else has made an edit since."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """One prompt of the page."""

    id: int
    text: str
    kind: PromptKind | None = None
    stuff: bool = False
    threshold: float | None = None
    enabled: bool = True
    color: str | None = None
    state: Literal["on", "encoding", "off", "error"] = "encoding"
    """encoding: the model does not know it yet; off: not enabled; error: it cannot be used."""
    reason: str | None = None
    encode_ms: float | None = None
    locked: bool = False
    """It must go on being looked for: its regions are blurred."""

    def prompt(self) -> Prompt:
        return Prompt(self.text, self.kind, self.stuff, self.threshold)

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.id, "text": self.text, "threshold": self.threshold, "enabled": self.enabled,
            "color": self.color, "state": self.state, "reason": self.reason,
            "encode_ms": self.encode_ms, "locked": self.locked,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Row:
    """A prompt in a `replace`."""

    text: str
    threshold: float | None = None
    enabled: bool = True
    color: str | None = None


class PromptList:
    """The prompts of one run; used from the event loop only, except `rev_of`.

    Args:
        prompts: Those that the run has.
        set_prompts: Gives the run other ones, and returns when it has them.
        changed: Called after each change.
        locked: Texts that cannot be removed, renamed, disabled or given another threshold.
    """

    def __init__(
        self,
        prompts: PromptSet,
        set_prompts: Callable[[PromptSet], Awaitable[PromptSet]],
        changed: Callable[[], None],
        locked: Sequence[str] = (),
    ) -> None:
        self.rev = 1
        self._set = set_prompts
        self._changed = changed
        self._locked = frozenset(locked)
        self._next_id = 1
        self._entries: tuple[_Entry, ...] = ()
        self._entries = self._adopted(prompts)
        self._applied = 1  # the revision that the model has
        self._applying = asyncio.Lock()
        self._ids: dict[str, int] = {}
        self._revs: dict[tuple[str, ...], int] = {}
        self._remember(prompts, 1)

    def state(self) -> dict[str, Any]:
        """The message `state`."""
        return {
            "type": "state",
            "rev": self.rev,
            "prompts": [entry.as_dict() for entry in self._entries],
        }

    @property
    def any_enabled(self) -> bool:
        """False where nothing is looked for: the model still has its last prompts."""
        return any(entry.enabled and entry.state != "error" for entry in self._entries)

    def rev_of(self, prompts: PromptSet) -> int | None:
        """The revision that a result's prompts are of; None for those of another editor."""
        return self._revs.get(prompts.texts)

    def id_of(self, text: str) -> int:
        """The id of a prompt by its text, 0 for none."""
        return self._ids.get(text, 0)

    def edit(self, ops: Sequence[PromptOp], base_rev: int | None) -> None:
        """Change the list, all or nothing; `apply` then brings the model after it.

        Args:
            ops: What to do, in this order.
            base_rev: The revision that the edit was made from; None: of any.

        Raises:
            ConflictError: it is not the present one.
            UsageError: an op cannot be done; the reason says why.
        """
        if base_rev is not None and base_rev != self.rev:
            raise ConflictError(f"the prompts have changed since revision {base_rev}")
        before, next_id = self._entries, self._next_id
        try:
            for op in ops:
                self._do(op)
            self._check()
        except BaseException:
            self._entries, self._next_id = before, next_id
            raise
        self.rev += 1
        self._changed()

    def _do(self, op: PromptOp) -> None:
        match op.op:
            case "add":
                self._add(_Row(op.text or "", op.threshold, color=op.color))
            case "replace":
                rows = [
                    read_table(_Row, row, "a prompt", error=UsageError) for row in op.prompts or ()
                ]
                self._replace(rows)
            case _:
                self._update(op)

    def _update(self, op: PromptOp) -> None:
        entry = next((e for e in self._entries if e.id == op.prompt), None)
        if entry is None:
            raise UsageError(f"there is no prompt {op.prompt}: somebody may have removed it")
        if entry.locked and op.op != "color":
            raise UsageError(f"{entry.text!r} is blurred: it must go on being looked for")
        changed: _Entry | None = entry
        match op.op:
            case "remove":
                changed = None
            case "rename":
                text = Prompt(_checked(op.text or "")).text
                if text != entry.text:  # another prompt, in the same position
                    changed = replace(
                        entry, id=self._new_id(), text=text, state="encoding", reason=None
                    )
            case "threshold":
                changed = replace(entry, threshold=op.threshold)
            case "enable":
                enabled = op.enabled is not False
                changed = replace(entry, enabled=enabled, state="encoding" if enabled else "off")
            case "color":
                changed = replace(entry, color=op.color)
        self._entries = tuple(
            new for e in self._entries if (new := changed if e is entry else e) is not None
        )

    def _add(self, row: _Row) -> None:
        self._entries += (self._entry(row, Prompt(_checked(row.text)).text),)

    def _entry(self, row: _Row, text: str) -> _Entry:
        return _Entry(
            self._new_id(), text, threshold=row.threshold, enabled=row.enabled, color=row.color,
            state="encoding" if row.enabled else "off", locked=text in self._locked,
        )  # fmt: skip

    def _replace(self, rows: Sequence[_Row]) -> None:
        """All prompts in this order; those that stay keep their id."""
        before = {entry.text: entry for entry in self._entries}
        found: dict[str, _Entry] = {}
        for row in rows:
            text = Prompt(_checked(row.text)).text
            known = before.get(text)
            if known is None:
                found[text] = self._entry(row, text)
            elif not known.locked:
                state = known.state if row.enabled == known.enabled else "encoding"
                found[text] = replace(
                    known, threshold=row.threshold, enabled=row.enabled, color=row.color,
                    state=state if row.enabled else "off",
                )  # fmt: skip
        locked = {text: entry for text, entry in before.items() if entry.locked}
        self._entries = (*locked.values(), *(e for e in found.values() if not e.locked))

    def _check(self) -> None:
        if len(self._entries) > MAX_PROMPTS:
            raise UsageError(f"a page has at most {MAX_PROMPTS} prompts")
        texts = [entry.text for entry in self._entries]
        if twice := {text for text in texts if texts.count(text) > 1}:
            raise UsageError(f"{twice.pop()!r} is there already")
        for entry in self._entries:
            if entry.color is not None and not _COLOR.fullmatch(entry.color):
                raise UsageError(f"color {entry.color!r:.20} is not #rrggbb")
            entry.prompt()  # its threshold

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    # -- the model ------------------------------------------------------------------------

    async def apply(self) -> None:
        """Give the model what is enabled; a prompt that it refuses is marked, the others are used.

        Edits that come meanwhile are given with the next call: the last one wins.

        Raises:
            PipelineError: the run is over.
        """
        async with self._applying:
            while self._applied < self.rev:
                rev = self.rev
                await self._apply_once(rev)
                self._applied = rev

    async def _apply_once(self, rev: int) -> None:
        while wanted := self._wanted():
            fresh = [entry for entry in wanted if entry.state == "encoding"]
            try:
                await self._give(wanted, rev)
            except PromptError as error:
                if not fresh:
                    raise
                if len(fresh) == 1:
                    self._mark(fresh, "error", reason=one_line(error))
                else:
                    await self._try_each(fresh, rev)
            else:
                break
        self._changed()

    async def _try_each(self, fresh: Sequence[_Entry], rev: int) -> None:
        """Which of several new prompts cannot be used."""
        for one in fresh:
            known = [entry for entry in self._wanted() if entry.state == "on"]
            try:
                await self._give([*known, one], rev)
            except PromptError as error:
                self._mark([one], "error", reason=one_line(error))

    async def _give(self, wanted: Sequence[_Entry], rev: int) -> None:
        prompts = PromptSet(tuple(entry.prompt() for entry in wanted))
        fresh = [entry for entry in wanted if entry.state == "encoding"]
        self._remember(prompts, rev)
        start = time.monotonic()
        await self._set(prompts)
        self._mark(fresh, "on", encode_ms=round(1e3 * (time.monotonic() - start), 1))

    def _wanted(self) -> list[_Entry]:
        return [entry for entry in self._entries if entry.enabled and entry.state != "error"]

    def _mark(self, marked: Sequence[_Entry], state: Literal["on", "error"], **fields: Any) -> None:
        # By id and text: an edit may have changed the list while the model was encoding.
        ids = {(entry.id, entry.text) for entry in marked}
        self._entries = tuple(
            replace(entry, state=state, **fields)
            if (entry.id, entry.text) in ids and entry.state == "encoding"
            else entry
            for entry in self._entries
        )

    def _remember(self, prompts: PromptSet, rev: int) -> None:
        self._revs.pop(prompts.texts, None)  # the newest is last: the first is forgotten first
        self._revs[prompts.texts] = rev
        while len(self._revs) > _REMEMBERED:
            self._revs.pop(next(iter(self._revs)))
        known = {**self._ids, **{entry.text: entry.id for entry in self._entries}}
        texts = {entry.text for entry in self._entries}.union(*self._revs)
        # Whole dictionaries are put in place: other threads read them.
        self._ids = {text: known[text] for text in texts if text in known}

    # -- other editors --------------------------------------------------------------------

    def adopt(self, prompts: PromptSet) -> None:
        """Take over prompts that were set by somebody else, as over the control socket."""
        if self.rev_of(prompts) is not None or self._applied < self.rev:
            return
        _log.info("the prompts were changed by another editor")
        self._entries = self._adopted(prompts)
        self.rev += 1
        self._applied = self.rev
        self._remember(prompts, self.rev)
        self._changed()

    def _adopted(self, prompts: PromptSet) -> tuple[_Entry, ...]:
        before = {entry.text: entry for entry in self._entries}
        return tuple(
            _Entry(
                before[p.text].id if p.text in before else self._new_id(),
                p.text,
                p.kind,
                p.stuff,
                p.threshold,
                state="on",
                color=before[p.text].color if p.text in before else None,
                locked=p.text in self._locked,
            )
            for p in prompts
        )


def _checked(text: str) -> str:
    if len(text) > MAX_TEXT_CHARS:
        raise UsageError(f"a prompt has at most {MAX_TEXT_CHARS} characters here")
    return text


def one_line(error: Exception) -> str:
    """One line for a page."""
    return " ".join(str(error).split())
