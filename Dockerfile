# The server of docs/serve.md, without the embedded model: give it an upstream.
#   docker build -t tts-plugins .
#   docker run -p 8400:8400 -e TTS_KEY -v usage:/data tts-plugins --base-url http://host:8000/v1 --key-env TTS_KEY
FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY tts_plugins tts_plugins
COPY integrations integrations
RUN python -m venv /opt/tts && /opt/tts/bin/pip install --no-cache-dir ".[cli,server,redis,prices,schema,otel]"

FROM python:3.12-slim
RUN useradd --system --uid 10001 --home-dir /data --create-home tts
COPY --from=build /opt/tts /opt/tts
USER tts
WORKDIR /data
VOLUME /data
EXPOSE 8400
ENV PYTHONUNBUFFERED=1
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
  CMD ["/opt/tts/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8400/health', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/tts/bin/tts-plugins", "serve", "--host", "0.0.0.0", "--port", "8400"]
