"""The second reading: tokens into nodes. Source: the package documentation of text/template ("Actions", "Pipelines",
"Variables", "Nested template definitions")."""

from __future__ import annotations

from collections.abc import Callable

from worker.teams.errors import TemplateError
from worker.teams.templates.functions import FUNCTIONS, near_matches
from worker.teams.templates.limits import MAX_NESTING, MAX_TEMPLATE_CHARS
from worker.teams.templates.nodes import (
    ActionNode,
    Arg,
    BreakNode,
    ChainArg,
    Command,
    ConstantArg,
    ContinueNode,
    DotArg,
    FieldArg,
    FieldStep,
    FunctionArg,
    IfNode,
    Node,
    Pipe,
    RangeNode,
    TemplateNode,
    TextNode,
    Tree,
    VariableArg,
    WithNode,
)
from worker.teams.templates.positions import error_at
from worker.teams.templates.tokens import Kind, Lexer, Token

_STARTS_ARG = frozenset(
    {Kind.WORD, Kind.FIELD, Kind.VARIABLE, Kind.DOT, Kind.VALUE, Kind.NIL, Kind.OPEN},
)


def parse(text: str, name: str) -> Tree:
    """The nodes of a template. Raises `TemplateError`."""
    if len(text) > MAX_TEMPLATE_CHARS:
        raise TemplateError(
            f"the template has {len(text)} characters; at most {MAX_TEMPLATE_CHARS} are allowed", name=name
        )
    return _Parser(text, name, Lexer(text, name).tokens()).tree()


class _Parser:
    def __init__(self, text: str, name: str, tokens: list[Token]) -> None:
        self._text = text
        self._name = name
        self._tokens = tokens
        self._place = 0
        self._depth = 0
        self._ranges = 0
        self._variables = ["$"]
        self._defined: dict[str, tuple[Node, ...]] = {}
        self._actions: dict[str, Callable[[Token], Node | None]] = {
            "if": self._if,
            "with": self._with,
            "range": self._range,
            "template": self._template,
            "block": self._block,
            "define": self._define,
            "break": self._break,
            "continue": self._continue,
        }

    def tree(self) -> Tree:
        body, end = self._body(None)
        if end is not None:
            raise self._fail(f"unexpected {{{{{end.text}}}}}: nothing is open", end)
        return Tree(body, self._defined)

    # Tokens

    def _fail(self, reason: str, token: Token) -> TemplateError:
        return error_at(self._text, token.at, reason, self._name)

    def _peek(self) -> Token:
        return self._tokens[self._place]

    def _next(self) -> Token:
        token = self._tokens[self._place]
        self._place += 1
        return token

    def _expect(self, kind: Kind, where: str) -> Token:
        token = self._next()
        if token.kind is not kind:
            raise self._fail(f"{_shown(token)} is unexpected {where}: {kind.value} should be here", token)
        return token

    def _deeper(self, token: Token) -> None:
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise self._fail(f"the template is nested too deeply: at most {MAX_NESTING} levels are allowed", token)

    # Actions

    def _body(self, opening: Token | None) -> tuple[tuple[Node, ...], Token | None]:
        """Nodes up to `end` or `else`, whose keyword is answered; at the top level up to the end of the text."""
        nodes: list[Node] = []
        while True:
            token = self._next()
            if token.kind is Kind.TEXT:
                nodes.append(TextNode(token.text, token.at))
            elif token.kind is Kind.END:
                if opening is not None:
                    raise self._fail(f"{{{{{opening.text}}}}} is never closed: {{{{end}}}} is missing", opening)
                return tuple(nodes), None
            elif self._peek().kind is Kind.KEYWORD and self._peek().text in ("end", "else"):
                return tuple(nodes), self._next()
            else:
                node = self._action(token)
                if node is not None:
                    nodes.append(node)

    def _action(self, left: Token) -> Node | None:
        token = self._peek()
        if token.kind is Kind.KEYWORD:
            self._next()
            self._deeper(token)
            node = self._actions[token.text](token)
            self._depth -= 1
            return node
        # A variable that an action declares lives to the end of the control structure around it.
        return ActionNode(self._pipe("an action", Kind.RIGHT), left.at)

    def _if(self, token: Token) -> Node:
        return IfNode(*self._control(token), token.at)

    def _with(self, token: Token) -> Node:
        return WithNode(*self._control(token), token.at)

    def _range(self, token: Token) -> Node:
        return RangeNode(*self._control(token), token.at)

    def _control(self, token: Token) -> tuple[Pipe, tuple[Node, ...], tuple[Node, ...]]:
        word = token.text
        known = len(self._variables)
        pipe = self._pipe(word, Kind.RIGHT)
        self._ranges += word == "range"
        body, end = self._body(token)
        self._ranges -= word == "range"
        otherwise: tuple[Node, ...] = ()
        if end is not None and end.text == "else":
            otherwise = self._else(word, end)
        else:
            self._expect(Kind.RIGHT, "behind end")
        del self._variables[known:]
        return pipe, body, otherwise

    def _else(self, word: str, token: Token) -> tuple[Node, ...]:
        following = self._peek()
        if following.kind is Kind.KEYWORD and following.text == word and word in ("if", "with"):
            # {{else if}} is an {{if}} inside of {{else}}, closed by the same {{end}}.
            self._next()
            self._deeper(following)
            node = self._if(following) if word == "if" else self._with(following)
            self._depth -= 1
            return (node,)
        self._expect(Kind.RIGHT, "behind else")
        body, end = self._body(token)
        if end is not None and end.text == "else":
            raise self._fail("a second {{else}}: {{end}} should be here", end)
        self._expect(Kind.RIGHT, "behind end")
        return body

    def _break(self, token: Token) -> Node:
        self._check_loop(token)
        return BreakNode(token.at)

    def _continue(self, token: Token) -> Node:
        self._check_loop(token)
        return ContinueNode(token.at)

    def _check_loop(self, token: Token) -> None:
        if not self._ranges:
            raise self._fail(f"{{{{{token.text}}}}} stands outside of {{{{range}}}}", token)
        self._expect(Kind.RIGHT, f"behind {token.text}")

    def _template_name(self, word: str) -> str:
        token = self._next()
        if token.kind is not Kind.VALUE or not isinstance(token.value, str):
            raise self._fail(f"{word} needs a name in quotes, not {_shown(token)}", token)
        return token.value

    def _template(self, token: Token) -> Node:
        name = self._template_name("template")
        pipe = None
        if self._peek().kind is Kind.RIGHT:
            self._next()
        else:
            pipe = self._pipe("template", Kind.RIGHT)
        return TemplateNode(name, pipe, token.at)

    def _define(self, token: Token) -> None:
        if self._depth > 1:
            raise self._fail("{{define}} has to stand at the top level, outside of any other action", token)
        name = self._template_name("define")
        self._expect(Kind.RIGHT, "behind the name")
        self._define_body(name, token)

    def _block(self, token: Token) -> Node:
        name = self._template_name("block")
        pipe = self._pipe("block", Kind.RIGHT)
        self._define_body(name, token)
        return TemplateNode(name, pipe, token.at)

    def _define_body(self, name: str, token: Token) -> None:
        outer, self._variables = self._variables, ["$"]
        ranges, self._ranges = self._ranges, 0
        body, end = self._body(token)
        if end is not None and end.text == "else":
            raise self._fail("{{else}} is unexpected: {{end}} should be here", end)
        self._expect(Kind.RIGHT, "behind end")
        self._variables, self._ranges = outer, ranges
        is_empty = all(isinstance(node, TextNode) and not node.text.strip() for node in body)
        if name in self._defined and not is_empty and self._defined[name]:
            raise self._fail(f"template {name!r} is defined twice", token)
        if name not in self._defined or not is_empty:
            self._defined[name] = body

    # Pipelines

    def _pipe(self, where: str, closing: Kind) -> Pipe:
        start = self._peek()
        variables, declares = self._declared(where)
        commands: list[Command] = []
        while True:
            token = self._peek()
            if token.kind is closing:
                break
            if token.kind not in _STARTS_ARG:
                raise self._fail(f"{_shown(token)} is unexpected in {where}", token)
            commands.append(self._command(where))
            if self._peek().kind is not Kind.PIPE:
                break
            pipe = self._next()
            if self._peek().kind is closing:
                raise self._fail("a command is missing behind `|`", pipe)
        self._check_commands(commands, where)
        self._expect(closing, f"in {where}")
        if declares:
            self._variables.extend(variables)
        return Pipe(tuple(commands), start.at, variables, declares)

    def _check_commands(self, commands: list[Command], where: str) -> None:
        if not commands:
            raise self._fail(f"{where} needs a value", self._peek())
        for command in commands[1:]:
            if isinstance(command.args[0], ConstantArg | DotArg):
                raise error_at(
                    self._text,
                    command.at,
                    "only a function can stand behind `|`: it takes the value before it as its last argument",
                    self._name,
                )

    def _declared(self, where: str) -> tuple[tuple[str, ...], bool]:
        """Variables before `:=` or `=`."""
        names: list[str] = []
        place = self._place
        while self._tokens[place].kind is Kind.VARIABLE:
            names.append(self._tokens[place].text)
            following = self._tokens[place + 1]
            if following.kind in (Kind.DECLARE, Kind.ASSIGN):
                return self._declare(names, place, where)
            if following.kind is not Kind.COMMA:
                break
            if where != "range" or len(names) == 2:
                raise self._fail(f"too many variables in {where}: only range takes two", following)
            place += 2
        return (), False

    def _declare(self, names: list[str], place: int, where: str) -> tuple[tuple[str, ...], bool]:
        operator = self._tokens[place + 1]
        if "$" in names:
            raise self._fail("$ is the template's data: it cannot be set", self._peek())
        if operator.kind is Kind.ASSIGN:
            for name in names:
                self._check_variable(name, self._peek())
        self._place = place + 2
        return tuple(names), operator.kind is Kind.DECLARE

    def _check_variable(self, name: str, token: Token) -> None:
        if name not in self._variables:
            known = ", ".join(dict.fromkeys(self._variables))
            raise self._fail(f"variable {name} is not declared; there are: {known}", token)

    def _command(self, where: str) -> Command:
        start = self._peek()
        args = [self._arg()]
        while self._peek().kind in _STARTS_ARG:
            token = self._peek()
            if not token.is_spaced:
                raise self._fail(f"{_shown(token)} has to be set apart by a space from what is before it", token)
            args.append(self._arg())
        if isinstance(args[0], ConstantArg) and args[0].source == "nil":
            raise self._fail(f"nil is no command: {where} needs a value", start)
        return Command(tuple(args), start.at)

    def _arg(self) -> Arg:
        token = self._next()
        if token.kind is Kind.WORD:
            return self._function(token)
        if token.kind is Kind.FIELD:
            return FieldArg((FieldStep(token.text, token.at), *self._fields()), token.at)
        if token.kind is Kind.VARIABLE:
            self._check_variable(token.text, token)
            return VariableArg(token.text, self._fields(), token.at)
        if token.kind is Kind.OPEN:
            return self._parenthesis(token)
        if token.kind is Kind.DOT:
            self._refuse_fields("`.`", "write .name")
            return DotArg(token.at)
        self._refuse_fields(token.text, "a constant has no fields")
        return ConstantArg(None if token.kind is Kind.NIL else token.value, token.at, token.text)

    def _parenthesis(self, token: Token) -> Arg:
        self._deeper(token)
        pipe = self._pipe("a parenthesis", Kind.CLOSE)
        self._depth -= 1
        return ChainArg(pipe, self._fields(), token.at)

    def _function(self, token: Token) -> Arg:
        if token.text not in FUNCTIONS:
            near = near_matches(token.text)
            raise self._fail(f"function {token.text!r} is not defined{near}", token)
        self._refuse_fields(token.text, f"write ({token.text} …).field to read a field of what a function gives")
        return FunctionArg(token.text, token.at)

    def _fields(self) -> tuple[FieldStep, ...]:
        steps: list[FieldStep] = []
        while self._peek().kind is Kind.FIELD and not self._peek().is_spaced:
            token = self._next()
            steps.append(FieldStep(token.text, token.at))
        return tuple(steps)

    def _refuse_fields(self, what: str, hint: str) -> None:
        token = self._peek()
        if token.kind in (Kind.FIELD, Kind.DOT) and not token.is_spaced:
            raise self._fail(f".{token.text.lstrip('.')} cannot stand directly behind {what}: {hint}", token)


def _shown(token: Token) -> str:
    if token.kind in (Kind.END, Kind.RIGHT, Kind.LEFT):
        return f"`{token.kind.value}`" if token.kind is not Kind.END else token.kind.value
    if token.kind is Kind.KEYWORD:
        return f"keyword {token.text}"
    text = token.text if len(token.text) <= 40 else f"{token.text[:40]}…"
    return f"`.{text}`" if token.kind is Kind.FIELD else f"`{text}`"
