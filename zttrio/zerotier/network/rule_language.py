"""ZeroTier's rules language: what an administrator writes, made into rules.

::

    # comments run to the end of the line
    macro allow($port)
      accept ipprotocol tcp and dport $port;
    ;

    tag role
      id 7
      enum 1 server
      default 0
    ;

    cap superuser
      id 1000
      accept;
    ;

    drop not ethertype ipv4 and not ethertype arp and not ethertype ipv6;
    include allow(22)
    break chr tcp_syn and not chr tcp_ack;
    accept tseq role server or treq role server;

Actions are ``drop``, ``break``, ``accept``, ``tee LENGTH NODE``, ``watch LENGTH NODE`` and
``redirect NODE``; each is taken if its matches hold, which are joined by ``and``, which may be left
out, and ``or``, from left to right and without precedence.  Words may be written in capitals, and
things may be used before they are defined.

The language is that of ZeroTier Central; its compiler was tried with many texts to see what it
takes.  It overlooks some mistakes and makes other rules of them than their author meant, for
example a range with something behind it; here they are errors.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs

from . import rules as r
from .rule_json import rules_to_json
from .rule_words import ACTIONS, MATCHES, RESERVED, TAG_MATCHES, WordError, number
from .rules import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["CapabilityDefinition", "RuleSet", "RuleSyntaxError", "TagDefinition", "compile_text"]

MAX_TEXT = 1 << 20  # arbitrary
MAX_DEFINITIONS = 128  # tags or capabilities that a member can have (1.2)
MAX_DEPTH = 32  # arbitrary; macros that include macros
MAX_INCLUDES = 4096  # arbitrary; there can be macros without rules

_WORD = re.compile(r"#.*|[;(),]|[^\s;(),#]+")
_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_VARIABLE = re.compile(r"\$[a-z0-9_]+")
_UINT32 = (1 << 32) - 1


class RuleSyntaxError(ValueError):
    """A text that is not in the rules language.

    Attributes:
        line: where, from 1 on.
        column: where in that line, from 1 on.
        reason: what is wrong.
    """

    def __init__(self, line: int, column: int, reason: str) -> None:
        super().__init__(line, column, reason)
        self.line = line
        self.column = column
        self.reason = reason

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.reason}"


@attrs.frozen
class TagDefinition:
    """A tag that members of the network can have.

    Attributes:
        name: in small letters.
        id: 32 bits.
        default: the value of members that were given none; None if they do not have the tag.
        values: names of values, from ``enum``; only people care.
        flags: names of single bits, from ``flag``, as values.
    """

    name: str
    id: int
    default: int | None
    values: Mapping[str, int]
    flags: Mapping[str, int]


@attrs.frozen
class CapabilityDefinition:
    """Rules that some members have.

    Attributes:
        name: in small letters.
        id: 32 bits.
        is_default: new members get it.
        rules: at most 64.
    """

    name: str
    id: int
    is_default: bool
    rules: tuple[Rule, ...]


@attrs.frozen
class RuleSet:
    """What a text says.

    Attributes:
        rules: of everybody, at most 1024.
        capabilities: by ascending ID.
        tags: by ascending ID.
    """

    rules: tuple[Rule, ...]
    capabilities: tuple[CapabilityDefinition, ...]
    tags: tuple[TagDefinition, ...]

    def as_json(self) -> dict[str, list[dict[str, Any]]]:
        """The fields ``rules``, ``capabilities`` and ``tags`` of a controller's network."""
        return {
            "rules": rules_to_json(self.rules),
            "capabilities": [
                {"id": cap.id, "default": cap.is_default, "rules": rules_to_json(cap.rules)}
                for cap in self.capabilities
            ],
            "tags": [{"id": tag.id, "default": tag.default} for tag in self.tags],
        }


def compile_text(source: str) -> RuleSet:
    """The rules, capabilities and tags that *source* describes.

    Raises:
        RuleSyntaxError: what is wrong, and where. It is a ValueError.
    """
    return _Compiler(_Reader(source)).compile()


class _Token(NamedTuple):
    text: str
    line: int
    column: int

    def error(self, reason: str) -> RuleSyntaxError:
        return RuleSyntaxError(self.line, self.column, reason)


class _Action(NamedTuple):
    words: tuple[_Token, ...]  # the action, its arguments and its matches, without the semicolon


class _Include(NamedTuple):
    name: _Token
    arguments: tuple[_Token, ...]


class _Macro(NamedTuple):
    parameters: tuple[str, ...]
    body: Sequence[_Action | _Include]


class _Cap(NamedTuple):
    name: _Token
    id: int
    is_default: bool
    body: Sequence[_Action | _Include]


class _Reader:
    """The words of a text, one after the other."""

    def __init__(self, source: str) -> None:
        if len(source) > MAX_TEXT:
            raise RuleSyntaxError(1, 1, f"the text has more than {MAX_TEXT} characters")
        self._words = list(_words(source))
        self._next = 0
        self._end = _Token("", source.count("\n") + 1, len(source.rpartition("\n")[2]) + 1)

    def peek(self) -> str:
        """The next word, empty at the end."""
        return self._words[self._next].text if self._next < len(self._words) else ""

    def take(self, what: str) -> _Token:
        """The next word, which has to be there."""
        if self._next == len(self._words):
            raise self._end.error(f"the text ends here, {what} is missing")
        token = self._words[self._next]
        self._next += 1
        return token

    def skip(self, word: str) -> bool:
        """Pass over *word*, if it is the next."""
        if self.peek() != word:
            return False
        self._next += 1
        return True

    def name(self, what: str) -> _Token:
        """The next word, which has to be a name that people may give."""
        token = self.take(f"the name of {what}")
        if _NAME.fullmatch(token.text) is None:
            raise token.error(f"{token.text}: no name for {what}, letters, digits and _ are")
        if token.text in RESERVED:
            raise token.error(f"{token.text}: no name for {what}, the language uses the word")
        return token

    def number(self, what: str, highest: int) -> int:
        """The next word, which has to be a number."""
        token = self.take(what)
        try:
            return number(token.text, highest)
        except WordError as exc:
            raise token.error(f"{what}: {exc}") from exc


def _words(source: str) -> Iterator[_Token]:
    for count, line in enumerate(source.lower().split("\n"), 1):
        for found in _WORD.finditer(line):
            if found[0][0] != "#":
                yield _Token(found[0], count, found.start() + 1)


class _Compiler:
    """Reads definitions and statements first, and makes rules of them afterwards."""

    def __init__(self, reader: _Reader) -> None:
        self._reader = reader
        self._macros: dict[str, _Macro] = {}
        self._tags: dict[str, TagDefinition] = {}
        self._caps: dict[str, _Cap] = {}
        self._statements: list[_Action | _Include] = []
        self._includes = 0

    def compile(self) -> RuleSet:
        reader = self._reader
        while reader.peek():
            token = reader.take("a statement")
            match token.text:
                case "macro":
                    self._read_macro()
                case "tag":
                    self._read_tag()
                case "cap":
                    self._read_cap()
                case ";":
                    raise token.error("there is nothing to end here")
                case _:
                    self._statements.append(self._read_statement(token))
                    if token.text == "include":
                        reader.skip(";")
        rules = self._rules(self._statements, r.NETWORK_LIMIT, "the network")
        caps = [self._capability(cap) for cap in self._caps.values()]
        return RuleSet(
            rules,
            tuple(sorted(caps, key=lambda cap: cap.id)),
            tuple(sorted(self._tags.values(), key=lambda tag: tag.id)),
        )

    # reading

    def _read_statement(self, token: _Token) -> _Action | _Include:
        if token.text == "include":
            return self._read_include()
        if token.text not in ACTIONS:
            raise token.error(f"{token.text}: unknown as an action")
        words = [token]
        while (word := self._reader.take("a semicolon")).text != ";":
            words.append(word)
        return _Action(tuple(words))

    def _read_include(self) -> _Include:
        name = self._reader.name("a macro")
        return _Include(name, self._read_list())

    def _read_list(self) -> tuple[_Token, ...]:
        """What stands between parentheses, if there are any."""
        reader = self._reader
        found: list[_Token] = []
        if not reader.skip("(") or reader.skip(")"):
            return ()
        while True:
            token = reader.take("a closing parenthesis")
            if token.text in ";(),":
                raise token.error(f"{token.text} where an argument belongs")
            found.append(token)
            token = reader.take("a closing parenthesis")
            if token.text == ")":
                return tuple(found)
            if token.text != ",":
                raise token.error(f"{token.text}: needs a comma or a parenthesis before it")

    def _read_body(self, token: _Token) -> Sequence[_Action | _Include]:
        """Statements up to the semicolon behind the last; *token* is the first word."""
        found: list[_Action | _Include] = []
        while token.text != ";":
            found.append(self._read_statement(token))
            token = self._reader.take("a semicolon")
        return found

    def _read_macro(self) -> None:
        name = self._reader.name("a macro")
        if name.text in self._macros:
            raise name.error(f"macro {name.text}: defined twice")
        parameters: list[str] = []
        for token in self._read_list():
            if _VARIABLE.fullmatch(token.text) is None or token.text in parameters:
                raise token.error(f"{token.text}: needs to be a name of its own, after a $")
            parameters.append(token.text)
        body = self._read_body(self._reader.take("a semicolon"))
        self._macros[name.text] = _Macro(tuple(parameters), body)

    def _read_tag(self) -> None:
        reader = self._reader
        name = reader.name("a tag")
        if name.text in self._tags or len(self._tags) == MAX_DEFINITIONS:
            raise name.error(f"tag {name.text}: defined twice, or one more than {MAX_DEFINITIONS}")
        identifier: int | None = None
        default: _Token | None = None
        values: dict[str, int] = {}
        flags: dict[str, int] = {}
        while (token := reader.take("a semicolon")).text != ";":
            if token.text == "id" and identifier is None:
                identifier = reader.number("an ID", _UINT32)
            elif token.text == "default" and default is None:
                default = reader.take("a value")
            elif token.text in ("enum", "flag"):
                is_flag = token.text == "flag"
                value = reader.number("a value", 31 if is_flag else _UINT32)
                word = reader.name("a value")
                if word.text in values or word.text in flags:
                    raise word.error(f"{word.text}: defined twice")
                (flags if is_flag else values)[word.text] = 1 << value if is_flag else value
            else:
                raise token.error(f"{token.text}: unknown in a tag, or there twice")
        if identifier is None:
            raise name.error(f"tag {name.text}: it has no id")
        if any(tag.id == identifier for tag in self._tags.values()):
            raise name.error(f"tag {name.text}: another one has its id {identifier}")
        value_of_default = None
        if default is not None:
            try:
                value_of_default = number(default.text, _UINT32, {**values, **flags})
            except WordError as exc:
                raise default.error(f"default: {exc}") from exc
        self._tags[name.text] = TagDefinition(
            name.text, identifier, value_of_default, values, flags
        )

    def _read_cap(self) -> None:
        reader = self._reader
        name = reader.name("a capability")
        if name.text in self._caps or len(self._caps) == MAX_DEFINITIONS:
            raise name.error(f"cap {name.text}: defined twice, or one more than {MAX_DEFINITIONS}")
        identifier: int | None = None
        is_default = False
        while (token := reader.take("a semicolon")).text in ("id", "default"):
            if token.text == "default":
                is_default = True
            elif identifier is None:
                identifier = reader.number("an ID", _UINT32)
            else:
                raise token.error("id: there twice")
        if identifier is None:
            raise name.error(f"cap {name.text}: it has no id before its rules")
        if any(cap.id == identifier for cap in self._caps.values()):
            raise name.error(f"cap {name.text}: another one has its id {identifier}")
        self._caps[name.text] = _Cap(name, identifier, is_default, self._read_body(token))

    # making rules

    def _capability(self, cap: _Cap) -> CapabilityDefinition:
        name = cap.name.text
        rules = self._rules(cap.body, r.CAPABILITY_LIMIT, f"cap {name}")
        return CapabilityDefinition(name, cap.id, cap.is_default, rules)

    def _rules(
        self, statements: Sequence[_Action | _Include], limit: int, what: str
    ) -> tuple[Rule, ...]:
        found: list[Rule] = []
        for first, rules in self._expand(statements, {}, 0):
            found += rules
            if len(found) > limit:
                raise first.error(f"{what}: it gets more than {limit} rules here")
        return tuple(found)

    def _expand(
        self, statements: Sequence[_Action | _Include], variables: Mapping[str, str], depth: int
    ) -> Iterator[tuple[_Token, list[Rule]]]:
        for statement in statements:
            if isinstance(statement, _Action):
                words = [_substitute(word, variables) for word in statement.words]
                yield words[0], self._make(words)
                continue
            name = statement.name
            macro = self._macros.get(name.text)
            if macro is None:
                raise name.error(f"macro {name.text}: not defined")
            if len(statement.arguments) != len(macro.parameters):
                needed, given = len(macro.parameters), len(statement.arguments)
                raise name.error(f"macro {name.text}: needs {needed} arguments, got {given}")
            self._includes += 1
            if depth == MAX_DEPTH or self._includes > MAX_INCLUDES:
                raise name.error(f"macro {name.text}: macros include macros without end")
            given_words = [_substitute(word, variables).text for word in statement.arguments]
            inner = dict(zip(macro.parameters, given_words, strict=True))
            yield from self._expand(macro.body, inner, depth + 1)

    def _make(self, words: Sequence[_Token]) -> list[Rule]:
        """The rules of one action: its matches, then itself."""
        action, *rest = words
        kind, count, read = ACTIONS[action.text]
        if len(rest) < count:
            raise action.error(f"{action.text}: needs {count} arguments")
        try:
            final = Rule.of(kind, *read([word.text for word in rest[:count]]))
        except WordError as exc:
            raise action.error(f"{action.text}: {exc}") from exc
        return [*self._matches(rest[count:]), final]

    def _matches(self, words: Sequence[_Token]) -> list[Rule]:
        found: list[Rule] = []
        position = 0
        while position < len(words):
            start = words[position]
            is_or = start.text == "or"
            if is_or and not found:
                raise start.error("or: there is nothing before it, and it would always hold")
            position += start.text in ("or", "and")
            is_not = position < len(words) and words[position].text == "not"
            position += is_not
            if position == len(words):
                raise words[-1].error(f"{words[-1].text}: a match is missing behind it")
            word = words[position]
            end = position + 1 + _arguments(word, words[position + 1 :])
            texts = [argument.text for argument in words[position + 1 : end]]
            try:
                kind, fields = self._fields(word.text, texts)
            except WordError as exc:
                raise word.error(f"{word.text}: {exc}") from exc
            found.append(Rule.of(kind, *fields, is_not=is_not, is_or=is_or))
            position = end
        return found

    def _fields(self, word: str, texts: Sequence[str]) -> tuple[int, tuple[Any, ...]]:
        """Type and fields of the rule that a match makes."""
        if word not in TAG_MATCHES:
            match = MATCHES[word]
            return match.read(match.type, texts)
        kind = TAG_MATCHES[word]
        name, value = texts
        tag = self._tags.get(name)
        if tag is not None:
            return kind, (tag.id, number(value, _UINT32, {**tag.values, **tag.flags}))
        if not name[:1].isdigit():
            raise WordError(f"there is no tag {name}")
        return kind, (number(name, _UINT32), number(value, _UINT32))


def _arguments(word: _Token, words: Sequence[_Token]) -> int:
    """How many of *words* are arguments of the match *word*."""
    takes_list = False
    if word.text in TAG_MATCHES:
        count = 2
    elif word.text in MATCHES:
        count, takes_list = MATCHES[word.text].arguments, MATCHES[word.text].takes_list
    else:
        hint = ", or a semicolon is missing before it" if word.text in RESERVED else ""
        raise word.error(f"{word.text}: unknown as a match{hint}")
    if takes_list:
        while len(words) > count and words[count].text == ",":
            count += 2
    if len(words) < count:
        raise word.error(f"{word.text}: arguments are missing")
    return count


def _substitute(token: _Token, variables: Mapping[str, str]) -> _Token:
    """*token* with the arguments of the macro in the place of its parameters."""
    if "$" not in token.text:
        return token

    def value_of(found: re.Match[str]) -> str:
        if found[0] not in variables:
            raise token.error(f"{found[0]}: not a parameter of this macro")
        return variables[found[0]]

    return token._replace(text=_VARIABLE.sub(value_of, token.text))
