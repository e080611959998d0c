"""System prompts, composed of what an agent says itself, of settings' fragments, and of what its tools need."""

from __future__ import annotations

from collections.abc import Sequence

from worker.errors import BadSetting
from worker.settings.prompt_file import read_prompt_file
from worker.teams.kinds.documents import Document, Documents
from worker.teams.kinds.objects import Fields
from worker.teams.kinds.references import name_of


class Prompts:
    """Composes the prompts of agents and inline roles."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._findings = documents.findings

    def compose(self, spec: Fields, instructions: Sequence[tuple[str, str]]) -> str:
        """Fragments that are prepended, the agent's own text, fragments that are appended, in the settings' order, and
        at last the instructions for its MCP servers."""
        before, after = self._fragments(self.settings(spec))
        parts = [*before, self._own(spec).strip(), *after]
        if instructions:
            parts.append(
                "## MCP Tool Guidance\n\n" + "\n\n".join(f"### {name}\n\n{text}" for name, text in instructions)
            )
        return "\n\n".join(part for part in parts if part)

    def settings(self, spec: Fields) -> list[Document]:
        """The settings that it names, in their order."""
        found = []
        for name in ("configRef", "settings", "settingsRefs"):
            given = spec.get(name)
            references = given if isinstance(given, list) else [given] if given else []
            for index, reference in enumerate(references):
                node = spec.at(name).items[index] if isinstance(given, list) else spec.at(name)
                document = self._documents.refer(name_of(reference), node, "settings", what="settings")
                if document is not None:
                    found.append(document)
        return found

    def _fragments(self, settings: Sequence[Document]) -> tuple[list[str], list[str]]:
        """The last of the same name counts, where the first one stands."""
        chosen: dict[str, tuple[str, str]] = {}
        for document in settings:
            for fragment in document.spec.many("fragments"):
                position = fragment.get("position", "append")
                chosen[fragment.text("name")] = (position, fragment.text("text").strip())
            if not document.spec.many("fragments"):
                old = document.spec.one("promptFragments")
                for name, position in (("persona", "prepend"), ("outputRules", "append")):
                    if name in old:
                        chosen[f"({name})"] = (position, old.text(name).strip())
        before = [text for position, text in chosen.values() if position == "prepend"]
        after = [text for position, text in chosen.values() if position == "append"]
        return before, after

    def _own(self, spec: Fields) -> str:
        prompt = spec.get("prompt")
        if isinstance(prompt, str):
            return prompt
        if isinstance(prompt, Fields):
            return self._from(prompt.one("from"), "") if "from" in prompt else prompt.text("inline")
        if "systemPromptRef" in spec:
            return self._from(spec.one("systemPromptRef"), spec.text("systemPrompt"))
        return spec.text("systemPrompt")

    def _from(self, source: Fields, otherwise: str) -> str:
        if "fileRef" in source:
            return self._file(source)
        kind, name = ("Secret", "secretKeyRef") if "secretKeyRef" in source else ("ConfigMap", "configMapKeyRef")
        selector = source.one(name)
        if kind == "Secret":
            self._findings.note_once(
                "prompt from a Secret",
                selector.node,
                "a prompt is no secret from those who may see the team: it is stored with its plan",
            )
        if (found := self._documents.sources.whole(kind, selector.text("name"))) and selector.text("key") in found:
            return found[selector.text("key")]
        if not selector.get("optional") and "name" in selector:
            self._findings.warning(
                selector.node,
                f"there is no key {selector.text('key')!r} of {kind} {selector.text('name')!r}: "
                + ("the inline text is used" if otherwise else f"the prompt is empty; add the {kind} to the file"),
            )
        return otherwise

    def _file(self, source: Fields) -> str:
        node = source.one("fileRef").at("path")
        try:
            return read_prompt_file(str(self._documents.sources.file(node.text)))
        except BadSetting as error:
            self._findings.error(node, f"{error}")
            return ""
