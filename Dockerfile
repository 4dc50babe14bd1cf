# docker build -t tollgate . && docker run -p 8080:8080 -v tollgate:/data tollgate
# The first start prints the generated admin password: see docker logs.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build

# The dependencies alone first: this layer is reused until Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
RUN mkdir src \
 && echo 'fn main() {}' > src/main.rs \
 && touch src/lib.rs \
 && cargo build --release --locked \
 && rm -r src

# cargo compares times, and a copied file may be older than the placeholder.
COPY . .
RUN find src -name '*.rs' -exec touch {} + \
 && cargo build --release --locked

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin tollgate \
 && install -d -o tollgate -g tollgate -m 0700 /data
COPY --from=build /build/target/release/tollgate /usr/local/bin/tollgate

USER tollgate
WORKDIR /data
# SQLite file, usage journal and generated secrets.
ENV DATA_DIR=/data SERVER_HOST=0.0.0.0
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["tollgate", "healthcheck"]
ENTRYPOINT ["tollgate"]
CMD ["serve"]
