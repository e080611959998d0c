"""Suite: what is asked without a stream: single answers, vectors, counts and facts."""

from __future__ import annotations

import msgspec

from providers.capabilities import Capability
from providers.conformance.support import Conformance, body_of, capable, check, has_text, needs
from providers.errors import BadResponse, RateLimited
from providers.interfaces import Completer, Embedder, ModelInfo, ModelInfoProvider, TokenCounter
from providers.messages import Message
from providers.replay_server import json_error

_WINDOW = 123_456


class OtherCallsConformance(Conformance):
    """`complete`, `embed`, `count_tokens`, `model_info`."""

    @needs(Capability.COMPLETE)
    async def test_complete(self) -> None:
        """A single prompt has an answer; both prompts are in the request (hook `completion_body`)."""
        async with self.serving(json_error(200, self.completion_body("Yes."))) as (server, provider, config):
            answer = await capable(provider, Completer).complete(config, "Be brief.", "Is it so?", 77)
            check(answer == "Yes.", f"the answer is {answer!r}")
            body = body_of(server.requests[0])
            for text in ("Be brief.", "Is it so?"):
                check(has_text(body, text), f"the request does not have {text!r}: {body}")
            check(len(server.requests) == 1, "one answer took several requests")

    @needs(Capability.COMPLETE)
    async def test_empty_completion(self) -> None:
        """No text at all is an error, not an empty answer."""
        async with self.serving(json_error(200, self.completion_body(""))) as (_, provider, config):
            try:
                answer = await capable(provider, Completer).complete(config, "", "Is it so?", 0)
            except BadResponse as error:
                check(error.provider == provider.name, f"the error's provider is {error.provider!r}")
            else:
                raise AssertionError(f"the answer is {answer!r}, and should be BadResponse")

    @needs(Capability.COMPLETE)
    async def test_failing_completion(self) -> None:
        """Its errors have the same classes as a stream's."""
        async with self.serving(self.error_reply(429)) as (_, provider, config):
            config = msgspec.structs.replace(config, max_retries=0)
            try:
                await capable(provider, Completer).complete(config, "", "Is it so?", 0)
            except RateLimited as error:
                check("the reason" in str(error), f"the message leaves out what the server said: {error}")
            else:
                raise AssertionError("the completion should have failed")

    @needs(Capability.EMBEDDINGS)
    async def test_embed(self) -> None:
        """One vector per text, in order; nothing is asked for no text (hook `embeddings_body`)."""
        vectors = [[0.25, 0.5], [0.75, -1.0]]
        async with self.serving(*self.embeddings_replies(vectors)) as (server, provider, config):
            embedder = capable(provider, Embedder)
            found = await embedder.embed(config, ["first-text", "second-text"])
            check(found == vectors, f"the vectors are {found}")
            sent = b"".join(request.body for request in server.requests)
            check(b"first-text" in sent and b"second-text" in sent, f"a text is missing in {sent!r}")
            asked = len(server.requests)
            check(await embedder.embed(config, []) == [] and len(server.requests) == asked, "nothing asked for nothing")

    @needs(Capability.EMBEDDINGS)
    async def test_embed_with_a_vector_missing(self) -> None:
        """Fewer vectors than texts are an error, not a shorter list."""
        async with self.serving(*self.embeddings_replies([[0.5]])) as (_, provider, config):
            replies = capable(provider, Embedder)
            try:
                found = await replies.embed(config, ["first-text", "second-text"])
            except BadResponse:
                return
            # A vendor that takes one text a request is asked twice, and has answered twice.
            check(len(self.embeddings_replies([[0.5], [0.5]])) > 1 and len(found) == 2, f"the vectors are {found}")

    @needs(Capability.COUNT_TOKENS)
    async def test_count_tokens(self) -> None:
        """A count is positive, and longer conversations have more."""
        short, long = [Message.user("Hi")], [Message.user("Hi"), Message.assistant("word " * 500), Message.user("Hm")]
        replies = () if Capability.VENDOR_COUNT in self.provider().gaps else (self.count_body(3), self.count_body(520))
        async with self.serving(*(json_error(200, body) for body in replies or (b"{}",))) as (_, provider, config):
            counter = capable(provider, TokenCounter)
            few, many = await counter.count_tokens(config, short), await counter.count_tokens(config, long)
            check(0 < few < many, f"{few} tokens for a word, {many} for five hundred")

    @needs(Capability.VENDOR_COUNT)
    async def test_vendor_counts(self) -> None:
        """The number is the vendor's, and the conversation is what it counted (hook `count_body`)."""
        async with self.serving(json_error(200, self.count_body(4321))) as (server, provider, config):
            counted = await capable(provider, TokenCounter).count_tokens(config, [Message.user("count-me")])
            check(counted == 4321, f"the count is {counted}")
            check(has_text(body_of(server.requests[0]), "count-me"), "the request does not have the conversation")

    @needs(Capability.MODEL_INFO)
    async def test_model_info(self) -> None:
        """A failing vendor leaves facts unknown; known models' windows are known all the same (hook `known_model`)."""
        async with self.serving(self.error_reply(500)) as (_, provider, config):
            config = msgspec.structs.replace(config, max_retries=0)
            source = capable(provider, ModelInfoProvider)
            for model in ("a-model-that-nobody-knows", self.known_model):
                info = await source.model_info(msgspec.structs.replace(config, model=model or config.model))
                check(isinstance(info, ModelInfo), f"{info!r} is no ModelInfo")
            check(not self.known_model or info.context_window, f"the window of {self.known_model} is not known")

    @needs(Capability.VENDOR_MODEL_INFO)
    async def test_vendor_knows_the_model(self) -> None:
        """What the vendor says of a model counts (hook `model_body`)."""
        async with self.serving(json_error(200, self.model_body(_WINDOW))) as (_, provider, config):
            info = await capable(provider, ModelInfoProvider).model_info(config)
            check(info.context_window == _WINDOW, f"the context window is {info.context_window}, not {_WINDOW}")
