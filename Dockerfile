# syntax=docker/dockerfile:1.7@sha256:a57df69d0ea827fb7266491f2813635de6f17269be881f696fbfdf2d83dda33e
# One file for the three images: docker build --target proxy | consumer | example-upstream.
#
# For both architectures: docker buildx build --platform linux/amd64,linux/arm64 --target proxy . (each is built on its
# own architecture, natively or emulated). Dependencies are a layer of their own, which only Cargo.lock, the manifests,
# the profile and the toolchain invalidate.
FROM rust:1.95.0-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1 AS toolchain
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# cmake builds pingora's zlib. Its version is that of the base image's Debian.
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends cmake \
  && rm -rf /var/lib/apt/lists/*
RUN cargo install --locked --version 0.1.78 cargo-chef
WORKDIR /src

# What the dependencies are, and nothing of the sources.
FROM toolchain AS recipe
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM toolchain AS build
ARG TARGETARCH
# jemalloc takes the size of a page when it is built; on arm64 a kernel may have pages of 64 KiB.
RUN if [ "$TARGETARCH" = arm64 ]; then \
    printf '[env]\nJEMALLOC_SYS_WITH_LG_PAGE = "16"\n' >>"$CARGO_HOME/config.toml"; \
  fi
COPY --from=recipe /src/recipe.json .
# The profile that a release is built by. On arm64 it is of no use, and does no harm.
COPY .cargo .cargo
RUN cargo chef cook --locked --release --recipe-path recipe.json \
  --package sidelog-proxy --package sidelog-consumer --package example-upstream
COPY . .
# What --version shows; git's files are not copied.
ARG SIDELOG_COMMIT=unknown
RUN cargo build --locked --release --bins \
  --package sidelog-proxy --package sidelog-consumer --package example-upstream \
  && mkdir -p /out/var/lib/sidelog \
  && cp target/release/sidelog-proxy target/release/sidelog-consumer target/release/example-upstream /out/

# busybox is its wget by that name: the health checks of compose.yml run it, the image has no shell.
FROM busybox:1.37.0-musl@sha256:5cec3fc171c87218698e85a52af7087de727372aae264a787b8112901a5b0092 AS busybox

# glibc, libgcc, certificates, no shell. This image has no version numbers; its Debian must not be older than the
# toolchain's.
FROM gcr.io/distroless/cc-debian13:nonroot@sha256:54df941ed0d06a1bd95ef5e0ce391fd8d9f94b64782dc9a60062727849ee3f97 AS runtime
ARG VERSION=0.1.0
LABEL org.opencontainers.image.licenses="MIT" \
  org.opencontainers.image.vendor="sidelog" \
  org.opencontainers.image.version="${VERSION}"
COPY --from=busybox /bin/busybox /usr/bin/wget
USER 65532:65532

FROM runtime AS example-upstream
LABEL org.opencontainers.image.title="example-upstream" \
  org.opencontainers.image.description="A small service to put behind sidelog-proxy"
ENV LISTEN=0.0.0.0:9000
COPY --from=build /out/example-upstream /usr/bin/example-upstream
EXPOSE 9000
ENTRYPOINT ["/usr/bin/example-upstream"]

FROM runtime AS consumer
LABEL org.opencontainers.image.title="sidelog-consumer" \
  org.opencontainers.image.description="Moves sidelog's records from NATS JetStream to Loki"
COPY --from=build /out/sidelog-consumer /usr/bin/sidelog-consumer
EXPOSE 9902
ENTRYPOINT ["/usr/bin/sidelog-consumer"]

# The last one is what `docker build .` makes.
FROM runtime AS proxy
LABEL org.opencontainers.image.title="sidelog-proxy" \
  org.opencontainers.image.description="A transparent logging sidecar for HTTP services"
# For the spool; a new volume that is mounted here takes its owner.
COPY --from=build --chown=65532:65532 /out/var/lib/sidelog /var/lib/sidelog
COPY --from=build /out/sidelog-proxy /usr/bin/sidelog-proxy
EXPOSE 8080 9901
ENTRYPOINT ["/usr/bin/sidelog-proxy"]
