# The first stage installs the service. The second copies the result, without build tools, pip or caches.
FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv --without-pip /opt/session-config-cache
# First the dependencies, with the versions and hashes that `scripts/lock` wrote; then the package alone.
COPY scripts/lib/requirements.txt scripts/lib/requirements.txt
RUN pip --python /opt/session-config-cache/bin/python install --no-cache-dir --require-hashes -r scripts/lib/requirements.txt
# The source maps are two thirds of Swagger UI, and nothing serves them.
RUN find /opt/session-config-cache -path '*/swagger_ui_bundle/*' -name '*.map' -delete
COPY pyproject.toml README.md LICENSE ./
COPY service ./service
RUN pip --python /opt/session-config-cache/bin/python install --no-cache-dir --no-deps .

FROM python:3.12-slim
COPY --from=build /opt/session-config-cache /opt/session-config-cache
# The server runs as an unprivileged user. A new volume gets the owner and mode of this directory.
RUN useradd --no-create-home --shell /usr/sbin/nologin --uid 10001 scc && install -d -o scc -g scc -m 0700 /data
ENV PATH=/opt/session-config-cache/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SCC_HOST=0.0.0.0 \
    SCC_ADMIN_HOST=0.0.0.0 \
    SCC_ADMIN_PORT=8030 \
    SCC_DATA_DIR=/data
USER scc
WORKDIR /data
VOLUME /data
EXPOSE 8029 8030
# At shutdown Redis writes the rest of its file: for a large store, run with --stop-timeout 30 or more.
STOPSIGNAL SIGTERM
# It connects to the server directly, even if HTTP_PROXY is set, and reads the address from the same variables.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["session-configs", "health"]
ENTRYPOINT ["session-configs"]
CMD ["serve"]
