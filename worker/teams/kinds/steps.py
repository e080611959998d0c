"""A pipeline's steps -> `Step`."""

from __future__ import annotations

from worker.teams.kinds.approvals import approval_of
from worker.teams.kinds.findings import Findings
from worker.teams.kinds.objects import Fields
from worker.teams.kinds.references import name_of
from worker.teams.plan import ContextPolicy, Lookup, Loop, Step, Validation


def compile_step(name: str, role: str, found: Fields, findings: Findings) -> Step:
    """The step of that name, done by that role."""
    loop = found.one("loop")
    return Step(
        name=name,
        role=role,
        inputs=found.get("inputs") or {},
        depends_on=found.texts("dependsOn"),
        condition=found.text("if"),
        loop=Loop(condition=loop.text("condition"), max_iterations=loop.whole("maxIterations", 10))
        if "loop" in found
        else None,
        output_schema=found.get("outputSchema"),
        validation=_validation(found.one("validate"), findings) if "validate" in found else None,
        context_policy=context_policy(found.one("contextPolicy"), findings) if "contextPolicy" in found else None,
        max_output_bytes=found.whole("maxOutputBytes", 65_536),
        approval=approval_of(found.get("approval")),
        lookup=_lookup(found.one("registryLookup")) if "registryLookup" in found else None,
        input_artifacts=found.get("inputArtifacts") or {},
        output_artifacts=tuple(name_of(artifact) for artifact in found.get("outputArtifacts") or ()),
        provider=found.text("provider"),
        model=found.text("model"),
        timeout_s=float(found.get("timeoutSeconds", 0)),
    )


def context_policy(found: Fields, findings: Findings) -> ContextPolicy:
    """What later steps see of an output."""
    strategy = found.get("strategy", "full")
    for name in ("compress", "extract"):
        if name in found and strategy != name:
            findings.error(found.key(name), f"{name} is for strategy {name!r}, and the strategy is {strategy!r}")
    if strategy == "extract" and "extract" not in found:
        findings.error(found.node, "strategy extract needs extract.path: a JSONPath, or a regular expression")
    compress = found.one("compress")
    return ContextPolicy(
        strategy=strategy,
        target_tokens=compress.whole("targetTokens"),
        model=compress.text("model"),
        prompt=compress.text("prompt"),
        path=found.one("extract").text("path"),
    )


def _validation(found: Fields, findings: Findings) -> Validation:
    if not any(name in found for name in ("contains", "schema", "semantic", "rejectPatterns")):
        findings.warning(found.node, "nothing is checked: give contains, schema, semantic or rejectPatterns")
    return Validation(
        reject_patterns=found.texts("rejectPatterns"),
        contains=found.text("contains"),
        schema=found.get("schema"),
        semantic=found.text("semantic"),
        semantic_model=found.text("semanticModel"),
        on_failure=found.get("onFailure", "fail"),
        max_retries=found.whole("maxRetries", 2),
    )


def _lookup(found: Fields) -> Lookup:
    return Lookup(
        capability=found.text("capability"),
        tags=found.texts("tags"),
        strategy=found.get("strategy", "least-busy"),
        fallback=found.text("fallback"),
    )
