# The first stage installs, the second takes only what was installed: no build tools, no pip, no cache.
FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv --without-pip /opt/session-config-cache
# What it needs, in the versions and with the hashes that `scripts/lock` wrote down; then the package itself and nothing else.
COPY scripts/lib/requirements.txt scripts/lib/requirements.txt
RUN pip --python /opt/session-config-cache/bin/python install --no-cache-dir --require-hashes -r scripts/lib/requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY service ./service
RUN pip --python /opt/session-config-cache/bin/python install --no-cache-dir --no-deps .

FROM python:3.12-slim
COPY --from=build /opt/session-config-cache /opt/session-config-cache
# The volume takes over the owner and the mode of this directory.
RUN useradd --no-create-home --shell /usr/sbin/nologin --uid 10001 scc && install -d -o scc -g scc -m 0700 /data
ENV PATH=/opt/session-config-cache/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SCC_HOST=0.0.0.0 \
    SCC_DATA_DIR=/data
USER scc
WORKDIR /data
VOLUME /data
EXPOSE 8029
# Redis gets time to write its file to the end: run with --stop-timeout 30 or more where the store is large.
STOPSIGNAL SIGTERM
# It asks the server itself, whatever HTTP_PROXY says, and knows the address from the same variables.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["session-configs", "health"]
ENTRYPOINT ["session-configs"]
CMD ["serve"]
