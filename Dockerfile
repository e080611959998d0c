# syntax=docker/dockerfile:1

ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /src
RUN python -m venv /opt/shoal
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY . .
# Which extras the image carries: `--build-arg EXTRAS=mcp,otlp` for a smaller one.
ARG EXTRAS=all
# The hot modules are compiled, here, where a compiler may be: `--build-arg COMPILED=0` for plain Python.
ARG COMPILED=1
RUN if [ "$COMPILED" = 1 ]; then apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev; fi
RUN HATCH_BUILD_HOOK_ENABLE_CUSTOM=$([ "$COMPILED" = 1 ] && echo true || echo false) \
    /opt/shoal/bin/pip install ".[${EXTRAS}]"

FROM python:${PYTHON_VERSION}-slim
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/shoal --create-home shoal
COPY --from=build /opt/shoal /opt/shoal
ENV PATH=/opt/shoal/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SHOAL_DATA_DIR=/var/lib/shoal \
    SHOAL_HEALTH_HOST=0.0.0.0 \
    SHOAL_HEALTH_PORT=8080
USER 10001:10001
WORKDIR /var/lib/shoal
EXPOSE 8000 8080
# SIGTERM drains: no new task, running ones finish within SHOAL_GRACE_SECONDS, the rest goes back to the queue.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['SHOAL_HEALTH_PORT'] + '/healthz', timeout=4)"]
ENTRYPOINT ["shoal"]
CMD ["worker"]
