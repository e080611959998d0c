"""Answers that are JSON of a given schema: how the model is asked, what is wrong with an answer, and what it holds."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import msgspec
from msgspec import Struct

from providers.errors import InvalidOutput, InvalidRequest, LimitReached
from providers.interfaces import ChatProvider, LLMProvider
from providers.messages import AgentConfig, Message, Role, StopReason, TextPart, ToolOutcome, TurnRequest
from queue_backends.messages import JsonObject, Task

_MOST_PROBLEMS = 5
_MOST_SHOWN_CHARS = 200

_FENCED = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)


class Verdict(Struct, frozen=True, kw_only=True):
    """What an answer is."""

    value: Any = None
    problem: str = ""
    """What is wrong with it, with the path that does not fit; empty if nothing is."""


class OutputSchema:
    """An agent's `output_schema`, ready to judge answers."""

    def __init__(self, schema: JsonObject) -> None:
        self._text = msgspec.json.encode(schema).decode()
        try:
            self._validator = jsonschema_rs.validator_for(schema, retriever=_refuse_remote)
        except ValueError as error:  # jsonschema_rs.ValidationError is one
            raise InvalidRequest(f"output_schema is no JSON Schema: {error}".splitlines()[0]) from error

    @property
    def instruction(self) -> str:
        """What a prompt ends with if the vendor cannot be given the schema; the same words as in ark."""
        return f"\nRespond with valid JSON matching this schema:\n{self._text}\n"

    def judge(self, answer: str) -> Verdict:
        """Whether an answer is, or has in a fenced block, JSON that fits."""
        if not answer.strip():
            return Verdict(problem="it is empty")
        problem = ""
        for text in _candidates(answer):
            try:
                value = msgspec.json.decode(text)
            except (msgspec.DecodeError, RecursionError) as error:
                problem = problem or f"it is not valid JSON: {error}"
                continue
            problems = list(self._problems(value))
            if not problems:
                return Verdict(value=value)
            problem = "; ".join(problems)
        return Verdict(problem=problem)

    def repair(self, problem: str) -> Message:
        """Tells the model what was wrong with its answer."""
        return Message.user(
            f"Your answer does not match the required JSON schema: {problem}. Answer again: only the corrected JSON, "
            f"complete, without any other text.{self.instruction}"
        )

    def _problems(self, value: Any) -> Iterator[str]:
        for count, error in enumerate(self._validator.iter_errors(value)):
            if count == _MOST_PROBLEMS:
                yield "and more"
                return
            message = error.message.splitlines()[0]
            shown = message if len(message) <= _MOST_SHOWN_CHARS else f"{message[:_MOST_SHOWN_CHARS]}…"
            yield f"at {_path(error.instance_path)}: {shown}"


def schema_of(config: AgentConfig) -> OutputSchema | None:
    """The schema that an agent's answers have to fit, if it has one. Raises `InvalidRequest` if that is none."""
    if config.output_schema is None:
        return None
    return _compiled(msgspec.json.encode(config.output_schema))


def prompted(provider: ChatProvider, request: TurnRequest) -> TurnRequest:
    """The request as this provider needs it: with the schema in the prompt, unless the vendor is given it.

    `options.native_schema: false` has the prompt ask in any case, for compatible servers that ignore a schema.
    """
    config = request.config
    if config.output_schema is None or (config.options.get("native_schema", True) and provider.sends_schema(config)):
        return request
    return with_schema_in_prompt(request)


def with_schema_in_prompt(request: TurnRequest) -> TurnRequest:
    """The request with the schema in its prompt, once; the same request if there is no schema."""
    schema = schema_of(request.config)
    if schema is None:
        return request
    messages = list(request.messages)
    for index in reversed(range(len(messages))):
        message = messages[index]
        if message.role is Role.USER and not any(isinstance(part, ToolOutcome) for part in message.parts):
            if not message.text.endswith(schema.instruction):
                messages[index] = _with_text(message, schema.instruction)
            break
    return msgspec.structs.replace(request, messages=tuple(messages))


def asked(provider: LLMProvider, config: AgentConfig, task: Task) -> Task:
    """The task as a provider that runs whole tasks needs it: with the schema in its prompt, unless the provider has a
    true `native_output_schema`. Raises `InvalidRequest` if the schema is none."""
    schema = schema_of(config)
    if schema is None or getattr(provider, "native_output_schema", False):
        return task
    return msgspec.structs.replace(task, prompt=task.prompt + schema.instruction)


def value_of(config: AgentConfig, answer: str) -> Any:
    """The value of an answer that nobody can repair any more; None for an agent without a schema.

    Raises `InvalidOutput` if it does not fit.
    """
    schema = schema_of(config)
    if schema is None:
        return None
    verdict = schema.judge(answer)
    if verdict.problem:
        raise InvalidOutput(f"the answer does not match output_schema: {verdict.problem}")
    return verdict.value


class Repairs:
    """One run's answers, judged: the first that does not fit is sent back to the model, the second ends the run."""

    __slots__ = ("_config", "_judged", "_schema", "_used")

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._schema = schema_of(config)
        self._used = False
        self._judged: tuple[str, Verdict] | None = None

    def follows(self, answer: str, stop_reason: StopReason) -> bool:
        """Whether the model will be asked to repair this answer."""
        if self._schema is None or self._used or stop_reason in (StopReason.MAX_TOKENS, StopReason.REFUSAL):
            return False
        return bool(self._judge(self._schema, answer).problem)

    def value(self, answer: str) -> Any:
        """What the answer holds."""
        return None if self._schema is None else self._judge(self._schema, answer).value

    def next_message(self, answer: str, stop_reason: StopReason) -> Message | None:
        """What to tell the model about its answer; None if it is good.

        Raises `InvalidOutput` if the model was told before, `LimitReached` if the answer was cut.
        """
        if self._schema is None or not (problem := self._judge(self._schema, answer).problem):
            return None
        if stop_reason is StopReason.MAX_TOKENS:
            raise LimitReached(
                f"the answer was cut at max_tokens ({self._config.max_tokens}) before it matched output_schema: "
                "raise it, or ask for less"
            )
        if self._used:
            raise InvalidOutput(
                f"the answer does not match output_schema, and did not when it was asked for again: {problem}"
            )
        self._used = True
        return self._schema.repair(problem)

    def _judge(self, schema: OutputSchema, answer: str) -> Verdict:
        if self._judged is None or self._judged[0] != answer:
            self._judged = (answer, schema.judge(answer))
        return self._judged[1]


@functools.lru_cache(maxsize=256)
def _compiled(schema: bytes) -> OutputSchema:
    return OutputSchema(msgspec.json.decode(schema))


def _candidates(answer: str) -> Iterator[str]:
    yield answer
    yield from _FENCED.findall(answer)


def _path(steps: list[str | int]) -> str:
    """As programmers write it, from `$`, the whole value."""
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


def _with_text(message: Message, text: str) -> Message:
    parts = list(message.parts)
    if parts and isinstance(parts[-1], TextPart):
        parts[-1] = TextPart(text=parts[-1].text + text)
    else:
        parts.append(TextPart(text=text.lstrip("\n")))
    return msgspec.structs.replace(message, parts=tuple(parts))


def _refuse_remote(uri: str) -> Any:
    raise ValueError(f"references to {uri} are not followed: put the definition into the schema")
