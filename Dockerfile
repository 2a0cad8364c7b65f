# The relay alone: one binary, no shell, no package manager, a user without a name.
#
# Built twice from the same commit it is the same binary (packaging/reproducible.sh). The images below are pinned by
# their versions; a release pins them by digest, with --build-arg BUILD_IMAGE=rust@sha256:… and RUN_IMAGE likewise.
ARG BUILD_IMAGE=rust:1.95.0-bookworm
# glibc of the same Debian, certificates of authorities, and nothing else.
ARG RUN_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY packaging/build.sh packaging/build.sh
COPY benches benches
COPY lua lua
COPY src src
RUN packaging/build.sh && mkdir /data

FROM ${RUN_IMAGE}
COPY --from=build /build/target/release/shoprelay /shoprelay
# For the embedded store; with a Redis nothing is written.
COPY --from=build --chown=65532:65532 /data /data
WORKDIR /data
VOLUME /data
# Reached from outside of the container, so it wants to know who may come in: tokens and keys, or SHOPRELAY_INSECURE.
ENV SHOPRELAY_LISTEN=0.0.0.0:8080 \
    SHOPRELAY_API_LISTEN=0.0.0.0:8081 \
    SHOPRELAY_METRICS_LISTEN=0.0.0.0:9090 \
    SHOPRELAY_STORE=embedded:/data
EXPOSE 8080 8081 9090
USER 65532:65532
# SIGTERM moves the devices elsewhere: give it time, docker stop --time 45.
STOPSIGNAL SIGTERM
# Whether it is alive. Whether it is ready looks at Redis too, which no restart brings back.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["/shoprelay", "health"]
ENTRYPOINT ["/shoprelay"]
CMD ["serve"]
