"""The HTTP API and its pages: where they listen, whom they let in, and how much."""

from __future__ import annotations

from worker.settings.gateway import AUTH_MODES
from worker.settings.setting import Setting, seconds, text, texts, whole

GATEWAY: tuple[Setting, ...] = (
    text("gateway.host", "SHOAL_HTTP_HOST", "Address of the HTTP API and pages; others than this machine need keys"),
    whole("gateway.port", "SHOAL_HTTP_PORT", "Its port; 0: any free one", 0, 65_535),
    text("gateway.public_url", "SHOAL_PUBLIC_URL", "Where people reach it: notifications link to its dashboard"),
    Setting(
        key="gateway.auth",
        type=str,
        variable="SHOAL_AUTH",
        choices=AUTH_MODES,
        meaning="`auto`: once there is a key, or OIDC is set, every request needs one; `off`: loopback only",
    ),
    texts("gateway.allowed_hosts", "SHOAL_ALLOWED_HOSTS", "Host names that requests may name; empty: see gateway.md"),
    texts(
        "gateway.trusted_proxies",
        "SHOAL_TRUSTED_PROXIES",
        "Addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed",
    ),
    texts("gateway.cors_origins", "SHOAL_CORS_ORIGINS", "Origins whose pages may call the API; empty: none"),
    text("gateway.tls_cert", "SHOAL_TLS_CERT", "Certificate (PEM) of the HTTP API"),
    text("gateway.tls_key", "SHOAL_TLS_KEY", "Its key"),
    text(
        "gateway.oidc_issuer",
        "SHOAL_OIDC_ISSUER",
        "Issuer whose tokens are taken, such as `https://id.example.com`",
    ),
    texts("gateway.oidc_audience", "SHOAL_OIDC_AUDIENCE", "Audiences that a token must have one of"),
    text("gateway.oidc_jwks_url", "SHOAL_OIDC_JWKS_URL", "Where the issuer's keys are; empty: as its discovery says"),
    texts("gateway.oidc_algorithms", "SHOAL_OIDC_ALGORITHMS", "Signatures that are taken"),
    seconds("gateway.oidc_leeway_s", "SHOAL_OIDC_LEEWAY_SECONDS", "How far clocks may differ", 0, 300),
    text("gateway.oidc_name_claim", "SHOAL_OIDC_NAME_CLAIM", "Claim with the caller's name"),
    text("gateway.oidc_groups_claim", "SHOAL_OIDC_GROUPS_CLAIM", "Claim with the caller's groups; dots go deeper"),
    text(
        "gateway.oidc_tenant_claim",
        "SHOAL_OIDC_TENANT_CLAIM",
        "Claim with the caller's tenant; then it must be there",
    ),
    text("gateway.oidc_scope_claim", "SHOAL_OIDC_SCOPE_CLAIM", "Claim with scopes: text with blanks, or a list"),
    Setting(
        key="gateway.oidc_scopes",
        type=dict[str, tuple[str, ...]],
        variable="SHOAL_OIDC_SCOPES",
        meaning='Claimed scope or group -> scopes here, such as `{"ops": ["ops.read", "ops.write"]}`',
    ),
    texts("gateway.oidc_default_scopes", "SHOAL_OIDC_DEFAULT_SCOPES", "Scopes that every token has"),
    whole("gateway.requests_per_minute", "SHOAL_REQUESTS_PER_MINUTE", "Of one caller; 0: no limit", 0),
    whole("gateway.burst", "SHOAL_REQUEST_BURST", "Requests that a caller may make at once", 1),
    whole("gateway.max_streams", "SHOAL_MAX_STREAMS", "Open event streams of this process", 1),
    whole("gateway.max_streams_per_key", "SHOAL_MAX_STREAMS_PER_KEY", "Open event streams of one caller", 1),
    whole("gateway.max_body_bytes", "SHOAL_MAX_BODY_BYTES", "Longest request that is read", 1024, 512 * 1024**2),
    seconds("gateway.body_timeout_s", "SHOAL_BODY_TIMEOUT_SECONDS", "For sending a request's body", 1, 3600),
    seconds("gateway.keep_alive_s", "SHOAL_KEEP_ALIVE_SECONDS", "How long an idle connection is kept", 1, 3600),
    seconds("gateway.heartbeat_s", "SHOAL_HEARTBEAT_SECONDS", "Between two signs of life on a silent stream", 1, 300),
    seconds(
        "gateway.start_timeout_s",
        "SHOAL_START_TIMEOUT_SECONDS",
        "So long a client of the APIs of OpenAI and Anthropic waits for a worker to take its task; 0: no limit",
        0,
        86400,
    ),
    texts(
        "allow_private_addresses",
        "SHOAL_ALLOW_PRIVATE_ADDRESSES",
        "Hosts, addresses or networks that callbacks and fetches may go to although they are private; or `all`",
    ),
    seconds("gateway.grace_s", "SHOAL_HTTP_GRACE_SECONDS", "For running requests after SIGTERM", 0, 3600),
)
