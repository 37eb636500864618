# Fluent Bit with the auditchain output, and the auditchain command.
#
#   docker build --build-arg VERSION=0.1.0 -t auditchain/fluent-bit:0.1.0 .

# Older than the image it goes into: a plugin does not load on a glibc older than the one it was built on (bookworm has
# 2.36, Fluent Bit's image is Debian trixie with 2.41).
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN make build VERSION="$VERSION" && mkdir /empty

# Distroless: no shell, hence no HEALTHCHECK; ask /api/v2/health from outside.
FROM fluent/fluent-bit:5.1.1
COPY --from=build /src/build/out_auditchain.so /usr/lib/auditchain/
COPY --from=build /src/build/auditchain /usr/bin/
COPY conf/aggregator/ /etc/auditchain/
COPY LICENSE /usr/share/doc/auditchain/
# A volume mounted there for the first time takes over the owner.
COPY --from=build --chown=65532:65532 /empty/ /var/lib/auditchain/
COPY --from=build --chown=65532:65532 /empty/ /etc/auditchain/keys/
USER 65532:65532
EXPOSE 24224
ENTRYPOINT ["/fluent-bit/bin/fluent-bit"]
CMD ["-c", "/etc/auditchain/fluent-bit.yaml"]
