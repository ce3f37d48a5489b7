# The image holds one static binary, the configuration files, and two directories that its
# user may write to. test/container checks all of it without a Docker engine.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /out/app/letshare-server ./cmd/server
RUN cp -r configs /out/app/configs && mkdir -p /out/app/logs /out/app/data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build --chown=65532:65532 /out/app /app
WORKDIR /app
USER 65532:65532
ENV MODE=production
EXPOSE 8080
VOLUME ["/app/logs", "/app/data"]
HEALTHCHECK --interval=10s --timeout=4s --start-period=5s --retries=3 CMD ["/app/letshare-server", "health"]
ENTRYPOINT ["/app/letshare-server"]
