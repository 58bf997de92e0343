# syntax=docker/dockerfile:1
# engage-relay's image: the locked wheels and the relay in one virtual environment, on a plain Python.
#
#   docker build --tag engage-relay .
#   docker run --rm engage-relay --help
#
# Rules:
#  1. Nothing is compiled and nothing is resolved: wheels only, each by its hash, the build's own tools, too.
#  2. It runs as a numeric user without a name, writes nothing (read-only root file system), and starts no shell.
#     Probes are HTTP: /healthz and /readyz on port 8080. HEALTHCHECK asks the former, with the relay's own command.
#  3. Every command reads /etc/engage-relay/relay.yaml: mount yours there. The image's own is empty, and variables are enough.
#  4. tests/deploy/test_image.py runs these very steps, without a container engine.

# Pin both by digest where builds must be repeatable to the byte: --build-arg PYTHON_IMAGE=python@sha256:...
ARG PYTHON_IMAGE=docker.io/library/python:3.13.18-slim-trixie
ARG UV_IMAGE=ghcr.io/astral-sh/uv:0.13.9

FROM ${UV_IMAGE} AS uv

FROM ${PYTHON_IMAGE} AS build
COPY --from=uv /uv /usr/local/bin/uv
ENV UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
WORKDIR /src
RUN uv venv --python python3 /opt/engage-relay
COPY requirements.lock ./
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --python /opt/engage-relay --compile-bytecode \
      --require-hashes --only-binary :all: -r requirements.lock
COPY pyproject.toml README.md requirements-dev.lock ./
COPY schemas ./schemas
COPY consumer ./consumer
COPY examples/06-platforms ./examples/06-platforms
RUN --mount=type=cache,target=/root/.cache/uv \
    uv build --wheel --require-hashes --build-constraints requirements-dev.lock --out-dir /dist
RUN uv pip install --python /opt/engage-relay --compile-bytecode --no-cache \
      --no-deps --no-index --find-links /dist engage-relay

FROM ${PYTHON_IMAGE}
ARG VERSION=0.2.0
ARG REVISION=unknown
ARG CREATED=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="engage-relay" \
      org.opencontainers.image.description="Relays a commerce platform's order events from Kafka to Voyado Engage order actions: none lost, none doubled unknowingly." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=build /opt/engage-relay /opt/engage-relay
COPY deploy/image/relay.yaml /etc/engage-relay/relay.yaml
ENV PATH=/opt/engage-relay/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    ENGAGE_RELAY_CONFIG=/etc/engage-relay/relay.yaml
USER 65532:65532
WORKDIR /
EXPOSE 8080
# For engines without probes of their own (Compose, Podman, ECS); Kubernetes ignores it.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["engage-relay", "status", "--check"]
ENTRYPOINT ["engage-relay"]
CMD ["run"]
