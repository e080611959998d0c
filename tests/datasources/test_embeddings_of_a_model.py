"""Embeddings of a real model over HTTP, and what is taken of a provider that answers nonsense."""

from __future__ import annotations

import asyncio

import pytest

from providers import register
from providers.openai_chat import OpenAIChatProvider
from queue_backends import open_backend
from worker.datasources.datasources import Datasources
from worker.datasources.documents import Document
from worker.datasources.embeddings import Embeddings
from worker.datasources.model import Datasource
from worker.definitions import Definitions
from worker.local_model import LocalModel
from worker.providers_in_use import ProvidersInUse
from worker.usage import UsageLedger

WITHIN_S = 90.0


@pytest.mark.local_model
@pytest.mark.skipif(not LocalModel.available(), reason="the model's wheels are not installed")
async def test_texts_are_found_by_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider for OpenAI's protocol against a model on this machine: a text's nearest passage is the text."""
    monkeypatch.setenv("LOCAL_KEY", "none-needed")
    register("openai", OpenAIChatProvider)
    texts = ["Pumps move water through pipes.", "The cat sleeps on the sofa.", "Interest rates rose in March."]
    async with asyncio.timeout(WITHIN_S), LocalModel(embeddings=True) as model, await open_backend("memory://") as here:
        source = Datasource(
            slug="notes",
            embed_provider="openai",
            embed_model="smollm2-135m",
            embed_base_url=model.base_url,
            embed_api_key_env="LOCAL_KEY",
        )
        async with Definitions(here.state) as definitions:
            await definitions.datasources.create(source)
            in_use = ProvidersInUse()
            datasources = Datasources(definitions, here.state, Embeddings(in_use, here.state, UsageLedger()))
            try:
                await datasources.ingest("notes", [Document(id=str(n), text=text) for n, text in enumerate(texts)])
                for number, text in enumerate(texts):
                    (best,) = await datasources.query("notes", text, max_results=1)
                    assert best.metadata["document"] == str(number)
                    assert best.score > 0.99
            finally:
                await datasources.aclose()
                await in_use.close()
