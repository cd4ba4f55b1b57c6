# The server, in a container: docker build -t moa . && see docs/how-to/operate.md

FROM python:3.13-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY moa_cli moa_cli
COPY profiles profiles
# Nothing of pip stays in the folder that is copied below.
RUN python -m venv --without-pip /opt/moa \
    && python -m pip --python /opt/moa/bin/python install --no-cache-dir '.[serve,otel,socks]'

FROM python:3.13-slim
RUN python -m pip uninstall --yes --root-user-action=ignore pip \
    && mkdir -p /config /data && chown 10001:10001 /data
COPY --from=build /opt/moa /opt/moa
# /config is mounted read-only as a rule: config.toml, profiles/, and a .env file or keys. /data keeps
# what was spent.
ENV PATH=/opt/moa/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    MOA_CONFIG_DIR=/config \
    MOA_DATA_DIR=/data/data \
    MOA_STATE_DIR=/data/state \
    MOA_CACHE_DIR=/data/cache
WORKDIR /data
USER 10001:10001
VOLUME /data
EXPOSE 8000
# Python, as there is nothing else here that speaks HTTP.
HEALTHCHECK --interval=15s --timeout=5s --start-period=15s CMD ["python", "-c", "import http.client, sys; asked = http.client.HTTPConnection('127.0.0.1', 8000, timeout=4); asked.request('GET', '/health'); sys.exit(asked.getresponse().status != 200)"]
ENTRYPOINT ["moa"]
# It asks for a key, since other machines can reach it: MOA_SERVE_API_KEY, or [server.keys.NAME].
CMD ["serve", "--host", "0.0.0.0", "--log-format", "json"]
