# One image for every role: relay, connector and operator are subcommands of one program.
# `hack/image/build` builds it with docker or buildah; plain `docker build .` works too.
ARG BASE_IMAGE=python:3.13-slim
# 1: the modules on every request's way are compiled too (docs/performance.md). Not a byte of the compiler stays.
ARG NATIVE=0

# The locked dependencies: rebuilt only when the lock changes. The secrets are optional: how this machine's pip finds
# packages, and the certificate authorities that it trusts; neither ends up in a layer.
FROM ${BASE_IMAGE} AS dependencies
WORKDIR /src
COPY requirements/image.txt requirements/image.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/pip-ca.crt \
    python3 -m venv /opt/culvert \
 && /opt/culvert/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/image.txt

# The same without what only builds.
FROM dependencies AS runtime
RUN /opt/culvert/bin/pip uninstall --quiet --yes editables hatchling pathspec pluggy trove-classifiers \
 && if /opt/culvert/bin/pip show --quiet setuptools; then /opt/culvert/bin/pip uninstall --quiet --yes setuptools; fi \
 && /opt/culvert/bin/pip uninstall --quiet --yes pip

# culvert itself, in a folder of its own that lies over the environment in the end. No index is needed any more.
FROM dependencies AS build
COPY pyproject.toml README.md LICENSE ./
COPY protocol protocol
COPY http1 http1
COPY ingress ingress
COPY transport transport
COPY access access
COPY relay relay
COPY connector connector
COPY operator operator
COPY cli cli
RUN /opt/culvert/bin/pip install --no-cache-dir --disable-pip-version-check --no-index --no-deps \
    --no-build-isolation --no-warn-script-location --prefix /opt/overlay .
# hack/image/build finds by it what a newer build has replaced.
LABEL org.opencontainers.image.title="culvert"

# A C compiler and mypyc, for NATIVE=1 alone: an engine builds no stage that nothing needs.
FROM dependencies AS compiler
COPY requirements/native.txt requirements/native.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/pip-ca.crt \
    headers=$(test -e "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" || echo python3-dev) \
 && apt-get update -q && apt-get install -q -y --no-install-recommends gcc libc6-dev $headers \
 && /opt/culvert/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/native.txt
LABEL org.opencontainers.image.title="culvert"

FROM build AS overlay-0

FROM compiler AS overlay-1
COPY --from=build /src /src
COPY --from=build /opt/overlay /opt/overlay
COPY hack/native/build.py hack/native/build.py
RUN /opt/culvert/bin/python hack/native/build.py --into \
    "$(/opt/culvert/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib", vars={"base": "/opt/overlay"}))')"
LABEL org.opencontainers.image.title="culvert"

FROM overlay-${NATIVE} AS overlay

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="culvert" \
      org.opencontainers.image.description="A self-hosted Cloudflare Tunnel for Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/culvert/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /
COPY --from=runtime /opt/culvert /opt/culvert
COPY --from=overlay /opt/overlay /opt/culvert
# A number, so that Kubernetes can see that it is not root. Nothing is written below /: the root may be read-only.
USER 65532:65532
ENTRYPOINT ["culvert"]
